"""What assets cost, and what a model version cost with everything that it was made from.

What belongs here: adding up what records hold. What does not: measuring (``execution.usage``), prices (``prices``), and
what work that is still to be done will cost (``backfill``, ``estimate``).

A version's cost is that of the run that made it, at the prices of that day; where it is reused that stays as it is.
Captions that a shard's new version kept from an older one cost nothing new there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.data.lake import Lake, Record

from .ancestry import ancestry
from .workspace import Outcome, Workspace


@dataclass(frozen=True, slots=True)
class Cost:
    """What some versions of an asset took together: wall, CPU and GPU seconds, the largest process, and the price.

    ``num_unmeasured`` of them were made before costs were measured and are not in it.
    """

    asset: str
    num_versions: int
    seconds: float
    cpu_seconds: float
    gpu_seconds: float
    peak_memory_gib: float
    cost: float
    num_unmeasured: int


@dataclass(frozen=True, slots=True)
class VersionCost:
    """What one version took, what it was made from, by asset, and all of it. ``missing`` are lost records."""

    own: Cost
    ancestors: Sequence[Cost]
    total: Cost
    missing: Sequence[str]


def cost_of(name: str, records: Sequence[Record]) -> Cost:
    """These records together, under a name."""
    return Cost(
        asset=name,
        num_versions=len(records),
        seconds=round(sum(one.seconds for one in records), 2),
        cpu_seconds=round(sum(one.cpu_seconds for one in records), 2),
        gpu_seconds=round(sum(one.gpu_seconds for one in records), 2),
        peak_memory_gib=max((one.peak_memory_gib for one in records), default=0.0),
        cost=round(sum(one.cost or 0.0 for one in records), 6),
        num_unmeasured=sum(one.cost is None for one in records),
    )


def by_asset(records: Sequence[Record]) -> list[Cost]:
    """Costs by asset, in the order in which assets first appear."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.asset, []).append(record)
    return [cost_of(asset, group) for asset, group in groups.items()]


def version_cost(lake: Lake, record: Record) -> VersionCost:
    """What a version cost: its own making and that of every version behind it, each counted once."""
    ancestors, missing = ancestry(lake, record)
    return VersionCost(
        own=cost_of(record.asset, [record]),
        ancestors=by_asset(ancestors),
        total=cost_of("total", [record, *ancestors]),
        missing=missing,
    )


def figures_of(record: Record, ancestors: Sequence[Record] | None = None) -> dict[str, float]:
    """What people are told of a version's cost, by name; ``cost_with_parents`` is with its ancestors, where given."""
    if record.cost is None:
        return {}
    figures = {name: getattr(record, name) for name in ("cpu_seconds", "gpu_seconds", "peak_memory_gib", "cost")}
    if ancestors is not None:
        figures["cost_with_parents"] = cost_of("total", [record, *ancestors]).cost
    return figures


def track_costs(ws: Workspace, outcome: Outcome) -> Outcome:
    """Tell the tracker's run what a new version took; a reused one keeps what its own run says."""
    record = outcome.record
    run_id = record.metadata.get("mlflow_run")
    if run_id and not outcome.is_reused:
        figures = {"seconds": record.seconds, **figures_of(record, ancestry(ws.lake, record)[0])}
        ws.tracker.log_metrics(run_id, {f"cost/{name}": value for name, value in figures.items()})
    return outcome
