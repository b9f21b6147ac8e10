"""The code location: every asset, job and resource of the graph, and the policies that hold for all of them.

``build_definitions`` takes resource overrides, so that tests replace a resource instead of patching one.
"""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from . import assets
from .automation import SENSORS
from .jobs import JOBS
from .liveness import dead_runs
from .resources import ComputeResource, LakeResource, RecipeResource, TrackingResource, WorkspaceResource


def build_definitions(resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The definitions, with some of the four leaf resources (recipe, lake, compute, tracking) replaced."""
    # Configured at launch, because only then does what a run is given for a leaf reach the workspace that holds it.
    leaves: dict[str, Any] = {
        "recipe": RecipeResource.configure_at_launch(
            dataset=os.environ.get("ATELIER_DATASET", "scenes"), recipe=os.environ.get("ATELIER_RECIPE", "tiny")
        ),
        "lake": LakeResource.configure_at_launch(),
        "compute": ComputeResource.configure_at_launch(),
        "tracking": TrackingResource.configure_at_launch(),
        **(resources or {}),
    }
    return dg.Definitions(
        assets=dg.load_assets_from_package_module(assets),
        jobs=[job.define() for job in JOBS],
        sensors=[*SENSORS, dead_runs],
        resources={**leaves, "workspace": WorkspaceResource(**leaves)},
        executor=dg.in_process_executor,  # one Ray session and one set of loaded libraries for all steps of a run
    )


defs = build_definitions()
