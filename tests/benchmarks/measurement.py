"""A ratio of two medians, and the workspace that benchmarks measure in."""

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from components.contracts import Executor
from components.data.catalog import load_dataset
from components.data.lake import Lake
from components.pipeline.workspace import Workspace
from components.recipes import load_recipe
from components.tracking import open_tracker


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours over the reference, both medians of rounds measured in turn."""

    name: str
    ours: float
    reference: float
    unit: str
    aim: str
    settings: str

    @property
    def ratio(self) -> float:
        """Ours over the reference."""
        return self.ours / self.reference

    @classmethod
    def of(cls, name: str, ours: list[float], reference: list[float], unit: str, aim: str, settings: str) -> "Ratio":
        """The ratio of the medians of two lists of equal length."""
        return cls(name, median(ours), median(reference), unit, aim, f"{settings}; {len(ours)} rounds; {hardware()}")

    def as_json(self) -> dict[str, Any]:
        """One entry of bench.json."""
        return {**asdict(self), "ratio": round(self.ratio, 4)}


def hardware() -> str:
    """Processor and cores, without the machine's name."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].split(":", 1)[1].strip() if models else platform.processor()
    return f"{name}, {os.cpu_count()} cores"


def open_bench_workspace(home: Path, executor: Executor, recipe: str = "smoke") -> Workspace:
    """A workspace of its own on the scenes data set."""
    home.mkdir(parents=True, exist_ok=True)
    tracker = open_tracker(f"sqlite:///{home / 'mlflow.db'}", str(home / "artifacts"))
    tracker.prepare()
    return Workspace(
        dataset=load_dataset("scenes"),
        recipe=load_recipe(recipe),
        lake=Lake(str(home / "lake")),
        executor=executor,
        tracker=tracker,
        scratch=home / "scratch",
    )
