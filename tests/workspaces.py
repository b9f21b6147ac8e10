"""A workspace of its own on the scenes world, in this process and without servers."""

from collections.abc import Mapping
from pathlib import Path

from components.data.catalog import Dataset, load_dataset
from components.data.lake import Lake
from components.execution.local_executor import LocalExecutor
from components.pipeline.workspace import Workspace
from components.recipes import load_recipe
from components.tracking import open_tracker


def scenes_workspace(
    folder: Path, overrides: Mapping[str, str], recipe: str = "smoke", dataset: Dataset | None = None
) -> Workspace:
    """Lake, tracker and scratch lie under ``folder``; the data set is the catalogue's unless another is given."""
    return Workspace(
        dataset=dataset or load_dataset("scenes"),
        recipe=load_recipe(recipe, overrides),
        lake=Lake(str(folder / "lake")),
        executor=LocalExecutor(),
        tracker=open_tracker(f"local:{folder / 'tracker'}"),
        scratch=folder / "scratch",
    )
