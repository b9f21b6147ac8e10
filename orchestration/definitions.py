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
from .resources import ComputeResource, LakeResource, RecipeResource, TrackingResource, WorkspaceResource


def build_definitions(resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The definitions, with some of the four leaf resources (recipe, lake, compute, tracking) replaced."""
    leaves: dict[str, Any] = {
        "recipe": RecipeResource(
            dataset=os.environ.get("ATELIER_DATASET", "scenes"), recipe=os.environ.get("ATELIER_RECIPE", "tiny")
        ),
        "lake": LakeResource(),
        "compute": ComputeResource(),
        "tracking": TrackingResource(),
        **(resources or {}),
    }
    return dg.Definitions(
        assets=dg.load_assets_from_package_module(assets),
        jobs=[job.define() for job in JOBS],
        sensors=SENSORS,
        resources={**leaves, "workspace": WorkspaceResource(**leaves)},
        executor=dg.in_process_executor,  # one Ray session and one set of loaded libraries for all steps of a run
    )


defs = build_definitions()
