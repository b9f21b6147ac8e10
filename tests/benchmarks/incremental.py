"""What recaptioning costs when little has changed: eight shards, against writing all of their captions."""

import time
from collections.abc import Callable
from pathlib import Path

from components.execution.local_executor import LocalExecutor
from components.pipeline.captions import recaption
from components.pipeline.champions import choose_champions
from components.pipeline.graph import make
from components.pipeline.ingest import shard_names
from components.pipeline.workspace import Workspace

from .measurement import Ratio, open_bench_workspace

NUM_ROUNDS = 3
NUM_SHARDS, NUM_ROWS = 8, 1500
ASSETS = ("raw_pairs", "image_set", "clip", "base_captioner", "ssc_captioner", "dsc_captioner", "champion_captioners")


def incremental_over_everything(folder: Path) -> list[Ratio]:
    """Seconds of three changes over those of writing every caption; models are loaded in each of them."""
    everything: list[float] = []
    seconds: dict[str, list[float]] = {change: [] for change in CHANGES}
    written = dict.fromkeys(CHANGES, "nothing")
    ws = _with(open_bench_workspace(folder, LocalExecutor()), {"data.max_shards": str(NUM_SHARDS)} | _rows(0))
    for asset in ASSETS:
        make(ws, asset)
    for number in range(1, NUM_ROUNDS + 1):
        everything.append(_recaptioned(ws.forced()))
        for change, (prepare, _) in CHANGES.items():
            ws = prepare(ws, number)
            before = _versions(ws)
            seconds[change].append(_recaptioned(ws))
            if _versions(ws) != before:
                written[change] = _written(ws)
    settings = f"{NUM_SHARDS * NUM_ROWS} pictures of 32 px in {NUM_SHARDS} shards, one process"
    return [
        Ratio.of(
            f"recaptioning, {change} / everything",
            seconds[change],
            everything,
            "seconds",
            aim,
            f"written: {written[change]}; {settings}",
        )
        for change, (_, aim) in CHANGES.items()
    ]


def _with(ws: Workspace, overrides: dict[str, str]) -> Workspace:
    return ws.with_recipe(ws.recipe.with_overrides(overrides))


def _rows(number: int) -> dict[str, str]:
    """So many per cent more rows in every shard."""
    return {"data.max_rows_per_shard": str(NUM_ROWS + number * NUM_ROWS // 100)}


def _grown(ws: Workspace, number: int) -> Workspace:
    """One per cent more rows in every shard, read already."""
    grown = _with(ws, _rows(number))
    make(grown, "raw_pairs")
    return grown


def _upgraded(ws: Workspace, number: int) -> Workspace:
    """Another DSC captioner, promoted already."""
    upgraded = _with(ws, {"dsc_captioner.training.seed": str(number)})
    make(upgraded, "dsc_captioner")
    choose_champions(upgraded)
    return upgraded


CHANGES: dict[str, tuple[Callable[[Workspace, int], Workspace], str]] = {
    "nothing changed": (lambda ws, _: ws, "seconds"),
    "1 % new rows": (_grown, "near 0.01"),
    "a new DSC captioner": (_upgraded, "no SSC"),
}


def _recaptioned(ws: Workspace) -> float:
    started = time.perf_counter()
    failures = [result.failure for result in recaption(ws, shard_names(ws)) if result.failure]
    if failures:
        raise RuntimeError(failures[0])
    return time.perf_counter() - started


def _versions(ws: Workspace) -> list[str]:
    return [record.data_version for record in ws.lake.records("recaptioned").values()]


def _written(ws: Workspace) -> str:
    records = ws.lake.records("recaptioned").values()
    counts = {kind: sum(record.metadata[f"{kind}_written"] for record in records) for kind in ("ssc", "dsc")}
    total = sum(record.num_rows or 0 for record in records)
    return ", ".join(f"{kind.upper()} {count} of {total} ({count / total:.1%})" for kind, count in counts.items())
