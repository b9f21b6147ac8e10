"""A workspace as values that can be pickled, so that a worker in another process or on another node can open it again.

The data set travels whole, with its addresses filled in: a worker needs neither its file nor its environment variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.data.lake import Lake
from components.execution.local_executor import LocalExecutor
from components.recipes.recipe import Recipe
from components.tracking import open_tracker

from .workspace import Workspace


def spec_of(ws: Workspace) -> dict[str, Any]:
    """Values from which :func:`open_workspace` makes the same workspace."""
    return {
        "dataset": ws.dataset,
        "recipe": ws.recipe.model_dump(mode="json"),
        "lake": ws.lake.uri(),
        "tracker": ws.tracker.uri,
        "scratch": str(ws.scratch),
        "run_tags": dict(ws.run_tags),
    }


def open_workspace(spec: Mapping[str, Any]) -> Workspace:
    """The workspace of a spec, with an executor that stays in this process."""
    return Workspace(
        dataset=spec["dataset"],
        recipe=Recipe.model_validate(spec["recipe"]),
        lake=Lake(spec["lake"]),
        executor=LocalExecutor(),
        tracker=open_tracker(spec["tracker"]),
        scratch=Path(spec["scratch"]),
        run_tags=spec["run_tags"],
    )
