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
from components.recipes.recipe import MapConfig

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

    ``items`` cuts a part into what workers are given one at a time; ``assemble`` makes the shard of their results.
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
    waiting: list[tuple[Record, str]] = []  # part, fingerprint
    for shard in shards:
        try:
            part = ws.parent("raw_pairs", shard)
            fingerprint, existing = ws.reusable(stage.asset, stage.inputs(part), stage.settings, shard)
        except UnfitParent as error:
            yield ShardResult(shard, failure=str(error))
            continue
        if existing:
            yield ShardResult(shard, existing)
        else:
            waiting.append((part, fingerprint))
    if waiting:
        yield from _make(ws, stage, waiting)


def row_group_items(ws: Workspace, part: Record) -> list[dict[str, Any]]:
    """One item for each row group of a part."""
    return [{"uri": ws.lake.uri(part.path), "row_group": group} for group in range(ws.lake.row_groups(part.path))]


def _make(ws: Workspace, stage: ShardStage, waiting: Sequence[tuple[Record, str]]) -> Iterator[ShardResult]:
    items = [stage.items(part) for part, _ in waiting]
    results = ws.executor.map(
        guarded(stage.factory),
        [item for each in items for item in each],
        resources=stage.workers.resources,
        max_workers=stage.workers.max_workers,
    )
    results = tracked(results, log, stage.asset, sum(map(len, items)), "row groups")
    for (part, fingerprint), own_items in zip(waiting, items, strict=True):
        started = time.perf_counter()
        tables = [next(results) for _ in own_items]
        assert part.shard is not None
        failures = [table.message for table in tables if isinstance(table, Caught)]
        if failures:
            yield ShardResult(part.shard, failure=f"{stage.asset}[{part.shard}]: {failures[0]}")
            continue
        made = stage.assemble(part, tables)
        made = replace(made, metadata={**made.metadata, "raw_rows": part.num_rows})
        seconds = time.perf_counter() - started
        outcome = ws.keep(stage.asset, fingerprint, stage.inputs(part), made, seconds=seconds, shard=part.shard)
        yield ShardResult(part.shard, outcome)
