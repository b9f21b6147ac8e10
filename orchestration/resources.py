"""Resources: the recipe, the lake, the compute and the tracker of a run, and the workspace that joins them.

What belongs here: configuration that the launchpad shows and the life cycle of connections. What does not: any work.
Heavy libraries are imported when a run starts, never when the code location loads.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field, PrivateAttr

from components.addresses import has_credentials, without_credentials
from components.recipes import RECIPES

from .home import Home, dagster_url, mlflow_url
from .liveness import end_dead_runs, hold


def _without_secret(address: str, variable: str) -> str:
    """An address from run configuration, which is stored in clear: ValueError where it carries credentials."""
    if has_credentials(address):
        raise ValueError(
            f"{without_credentials(address)} was given with a user, password or signature, and run configuration is "
            f"stored in clear: change that password, and set {variable} in the environment instead"
        )
    return address


def overrides_of(environment: Mapping[str, str]) -> dict[str, str]:
    """What ``ATELIER_OVERRIDES`` says: dotted fields of the recipe, with values as ``--set`` takes them.

    Raises ValueError where it is not a JSON object.
    """
    said = environment.get("ATELIER_OVERRIDES") or "{}"
    try:
        fields = json.loads(said)
    except json.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise ValueError(f'ATELIER_OVERRIDES is {said!r}: write a JSON object such as {{"data.max_shards": "3"}}')
    return {field: value if isinstance(value, str) else json.dumps(value) for field, value in fields.items()}


class RecipeResource(dg.ConfigurableResource):
    """Which data set and recipe a run is for; the same for all of its assets."""

    dataset: str = Field(default="scenes", description="Name of a folder under datasets/.")
    recipe: str = Field(default="tiny", description=f"One of {', '.join(RECIPES)}.")
    overrides: dict[str, str] = Field(
        default_factory=dict,
        description="Dotted fields of the recipe, e.g. latent_diffusion.training.num_steps: '200'.",
    )
    force: bool = Field(default=False, description="Make assets again even where nothing has changed.")

    def load(self) -> Any:
        """The resolved recipe; a wrong name or override is refused before any work."""
        from components.recipes import load_recipe

        return load_recipe(self.recipe, self.overrides)

    @property
    def home(self) -> Home:
        """Where this data set and recipe keep their things."""
        return Home(self.dataset, self.recipe)


class LakeResource(dg.ConfigurableResource):
    """Where tables, models and reports lie."""

    uri: str = Field(
        default="", description="A path or s3://bucket/prefix; empty takes ATELIER_LAKE or the deployment's home."
    )

    def open(self, home: Home) -> Any:
        """The lake."""
        from components.data.lake import Lake

        return Lake(_without_secret(self.uri, "ATELIER_LAKE") or home.lake)


class ComputeResource(dg.ConfigurableResource):
    """Ray: attaches to an address where there is one, else starts a private cluster when the run first needs it."""

    address: str = Field(
        default="", description="Ray address; empty takes RAY_ADDRESS, or a private cluster on this machine."
    )
    num_cpus: int = Field(default=0, description="CPUs of a private cluster; 0 takes all of this machine's.")
    object_store_mb: int = Field(default=256, description="Object store of a private cluster, in MiB.")
    _executor: Any = PrivateAttr(None)

    def open(self) -> Any:
        """The executor, one for all steps of a run."""
        if self._executor is None:
            from components.execution.ray_executor import RayExecutor

            self._executor = RayExecutor(
                address=self.address or None,
                num_cpus=self.num_cpus or os.cpu_count(),
                object_store_mb=self.object_store_mb,
            )
        return self._executor

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Disconnect from Ray, and stop what this run started."""
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None


class TrackingResource(dg.ConfigurableResource):
    """MLflow: runs, lineage and the model registry."""

    uri: str = Field(
        default="", description="Tracking URI; empty takes MLFLOW_TRACKING_URI or the deployment's sqlite file."
    )

    def open(self, home: Home) -> Any:
        """The tracker."""
        from components.tracking import open_tracker

        return open_tracker(_without_secret(self.uri, "MLFLOW_TRACKING_URI") or home.tracking_uri, home.artifacts)


class WorkspaceResource(dg.ConfigurableResource):
    """All of the above, as the workspace that stage functions take."""

    recipe: dg.ResourceDependency[RecipeResource]
    lake: dg.ResourceDependency[LakeResource]
    compute: dg.ResourceDependency[ComputeResource]
    tracking: dg.ResourceDependency[TrackingResource]

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Tell others that the run has a process, and look for runs beside it that have lost theirs."""
        if context.run:
            hold(context.run.run_id)
        if context.run and context.instance:  # no sensor sees the locks of a node on which runs are Ray jobs
            end_dead_runs(context.instance)

    def open(self, context: dg.AssetExecutionContext | None = None) -> Any:
        """The workspace of a run (or of a sensor's tick, where there is no run)."""
        from components.data.catalog import load_dataset
        from components.pipeline.workspace import Workspace

        home = self.recipe.home
        home.scratch.mkdir(parents=True, exist_ok=True)
        return Workspace(
            dataset=load_dataset(self.recipe.dataset),
            recipe=self.recipe.load(),
            lake=self.lake.open(home),
            executor=self.compute.open(),
            tracker=self.tracking.open(home),
            scratch=home.scratch,
            is_forced=self.recipe.force,
            run_tags=_run_tags(context) if context else {},
        )


def _run_tags(context: dg.AssetExecutionContext) -> dict[str, str]:
    """What the MLflow run says about the Dagster run it belongs to."""
    run_id = context.run.run_id
    return {
        "dagster.run_id": run_id,
        "dagster.url": f"{dagster_url()}/runs/{run_id}",
        "dagster.asset_keys": ",".join(key.to_user_string() for key in context.selected_asset_keys),
    }


def mlflow_link(run_path: str) -> str:
    """URL of an MLflow run in the UI."""
    return f"{mlflow_url()}/{run_path}"
