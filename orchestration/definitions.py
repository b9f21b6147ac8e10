"""The code location: every asset, job and resource of the graph, and the policies that hold for all of them.

The environment says which deployment it is (``ATELIER_DATASET``, ``ATELIER_RECIPE``, ``ATELIER_OVERRIDES``: a JSON
object of dotted fields) and what happens by itself (``automation``).

``build_definitions`` takes resource overrides, so that tests replace a resource instead of patching one.
"""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from . import assets
from .automation import automation_of
from .jobs import JOBS
from .resources import (
    ComputeResource,
    LakeResource,
    RecipeResource,
    TrackingResource,
    WorkspaceResource,
    overrides_of,
)
from .rollback import rollback


def build_definitions(resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The definitions, with some of the four leaf resources (recipe, lake, compute, tracking) replaced."""
    # Configured at launch, because only then does what a run is given for a leaf reach the workspace that holds it.
    leaves: dict[str, Any] = {
        "recipe": RecipeResource.configure_at_launch(
            dataset=os.environ.get("ATELIER_DATASET", "scenes"),
            recipe=os.environ.get("ATELIER_RECIPE", "tiny"),
            overrides=overrides_of(os.environ),
        ),
        "lake": LakeResource.configure_at_launch(),
        "compute": ComputeResource.configure_at_launch(),
        "tracking": TrackingResource.configure_at_launch(),
        **(resources or {}),
    }
    return dg.Definitions(
        assets=dg.load_assets_from_package_module(assets),
        jobs=[*(job.define() for job in JOBS), rollback],
        **automation_of(os.environ),
        resources={**leaves, "workspace": WorkspaceResource(**leaves)},
        executor=dg.in_process_executor,  # one Ray session and one set of loaded libraries for all steps of a run
    )


defs = build_definitions()
