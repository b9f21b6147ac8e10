"""Work over many shards at once: one worker pool for all of them, and one shard's failure is its own.

What belongs here: planning what must be made, gathering results shard by shard. What
does not: what is done to the rows (captioning, encoding).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from components.data.lake import Record
from components.execution.memory import forget_peak_memory
from components.execution.usage import Meter, metered
from components.recipes.recipe import MapConfig

from .backfill import COMPUTED, RangeEstimate, estimate_of
from .progress import tracked
from .workspace import Made, Outcome, UnfitParent, Workspace

log = logging.getLogger(__name__)

ItemWork = Callable[[Mapping[str, Any]], pa.Table]


@dataclass(frozen=True, slots=True)
class ShardResult:
    """How one shard ended: an outcome, or the reason why it failed."""

    shard: str
    outcome: Outcome | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Caught:
    """An exception that a worker met on one item, as text, so that the other items go on."""

    message: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A shard that must be made: its part of raw_pairs and its fingerprint."""

    part: Record
    fingerprint: str


def guarded(factory: Callable[[], Callable[[Any], Any]]) -> Callable[[], Callable[[Any], Any]]:
    """A factory whose worker returns :class:`Caught` instead of raising, because one bad item must not end the run."""
    return partial(_guarded_worker, factory)


def _guarded_worker(factory: Callable[[], Callable[[Any], Any]]) -> Callable[[Any], Any]:
    work = factory()

    def attempt(item: Any) -> Any:
        try:
            return work(item)
        except Exception as error:  # whatever a worker meets on one item belongs to that item
            log.exception("failed on %s", item)
            return Caught(f"{type(error).__name__}: {error}")

    return attempt


@dataclass(frozen=True, slots=True)
class ShardStage:
    """One partitioned asset that is made from raw_pairs.

    ``items`` cuts a part into what workers are given one at a time, each with its ``num_rows``; a worker answers with a
    table of as many rows. ``assemble`` makes the shard of their results.
    """

    asset: str
    inputs: Callable[[Record], Mapping[str, str]]
    settings: Any
    items: Callable[[Record], Sequence[Mapping[str, Any]]]
    factory: Callable[[], ItemWork]
    workers: MapConfig
    assemble: Callable[[Record, list[pa.Table]], Made]


def make_shards(ws: Workspace, stage: ShardStage, shards: Sequence[str]) -> Iterator[ShardResult]:
    """Make (or reuse) each shard; results in the order in which shards are finished."""
    ws.lake.check_writable()
    waiting: list[Waiting] = []
    for found in plan_shards(ws, stage, shards):
        if isinstance(found, Waiting):
            waiting.append(found)
        else:
            yield found
    if waiting:
        yield from _make(ws, stage, waiting)


def plan_shards(ws: Workspace, stage: ShardStage, shards: Sequence[str]) -> Iterator[ShardResult | Waiting]:
    """What each shard needs: nothing more (it is reused, or cannot be made), or to be made."""
    for shard in shards:
        try:
            part = ws.parent("raw_pairs", shard)
            fingerprint, existing = ws.reusable(stage.asset, stage.inputs(part), stage.settings, shard)
        except UnfitParent as error:
            yield ShardResult(shard, failure=str(error))
            continue
        yield ShardResult(shard, existing) if existing else Waiting(part, fingerprint)


def estimate_shards(ws: Workspace, stage: ShardStage, shards: Sequence[str]) -> RangeEstimate:
    """What making these shards will take; those that are up to date take nothing."""
    waiting = [one for one in plan_shards(ws, stage, shards) if isinstance(one, Waiting)]
    num_rows = sum(item["num_rows"] for one in waiting for item in stage.items(one.part))
    return estimate_of(ws, stage.asset, len(waiting), num_rows)


def pictures_per_second(num_rows: int, seconds: float) -> dict[str, float]:
    """What a shard's metadata says of its speed: that of one worker, whoever waited for it; nothing without rows."""
    return {"pictures_per_second": round(num_rows / seconds, 1)} if num_rows and seconds > 0 else {}


def row_group_items(ws: Workspace, part: Record) -> list[dict[str, Any]]:
    """One item for each row group of a part."""
    sizes = ws.lake.row_group_sizes(part.path)
    return [{"uri": ws.lake.uri(part.path), "row_group": n, "num_rows": size} for n, size in enumerate(sizes)]


def _make(ws: Workspace, stage: ShardStage, waiting: Sequence[Waiting]) -> Iterator[ShardResult]:
    forget_peak_memory()
    meter = Meter()
    items = [stage.items(one.part) for one in waiting]
    num_rows = sum(item["num_rows"] for each in items for item in each)
    log.info("%s", estimate_of(ws, stage.asset, len(waiting), num_rows))
    results = ws.executor.map(
        metered(guarded(stage.factory), stage.workers.num_gpus_per_worker),
        [item for each in items for item in each],
        resources=stage.workers.resources,
        max_workers=stage.workers.max_workers,
    )
    results = tracked(results, log, stage.asset, sum(map(len, items)), "row groups")
    for one, own_items in zip(waiting, items, strict=True):
        started, part = time.perf_counter(), one.part
        answers = [next(results) for _ in own_items]
        tables = [answer.result for answer in answers]
        assert part.shard is not None
        failures = [table.message for table in tables if isinstance(table, Caught)]
        if failures:
            meter.lap()  # what a failed shard took is not the next one's
            yield ShardResult(part.shard, failure=f"{stage.asset}[{part.shard}]: {failures[0]}")
            continue
        made = stage.assemble(part, tables)
        rows = sum(table.num_rows for table in tables)
        speed = pictures_per_second(rows, sum(answer.seconds for answer in answers))
        made = replace(made, metadata={**made.metadata, "raw_rows": part.num_rows, COMPUTED: rows, **speed})
        outcome = ws.keep(
            stage.asset,
            one.fingerprint,
            stage.inputs(part),
            made,
            seconds=time.perf_counter() - started,
            usage=meter.lap().with_workers(answer.usage for answer in answers),
            shard=part.shard,
        )
        yield ShardResult(part.shard, outcome)
