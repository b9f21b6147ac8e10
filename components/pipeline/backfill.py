"""What a range of shards will take, before it is made: by the rate at which earlier shards were.

What belongs here: rows that are still to be made, and the rate of earlier ones. What does not: making them (``shards``,
``ingest``), and trainings, whose steps are counted instead (``estimate``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.data.lake import Record

from .prices import Prices
from .progress import clock
from .workspace import Workspace

COMPUTED = "rows_computed"  # of a shard's metadata: rows that workers really worked on; the others were there already
_READ = "read"  # the same of raw_pairs


@dataclass(frozen=True, slots=True)
class Rate:
    """What earlier shards took for their rows: wall, CPU and GPU seconds of all of them."""

    num_shards: int
    num_rows: int
    seconds: float
    cpu_seconds: float
    gpu_seconds: float


@dataclass(frozen=True, slots=True)
class RangeEstimate:
    """Shards and rows that are to be made. ``num_rows`` and ``rate`` are None where no earlier shard tells."""

    asset: str
    num_shards: int
    num_rows: int | None
    rate: Rate | None
    prices: Prices

    @property
    def seconds(self) -> float | None:
        """Wall seconds, with as many workers as the earlier shards had."""
        return self._scaled(self.rate.seconds) if self.rate else None

    @property
    def cost(self) -> float | None:
        """What it will cost at today's prices."""
        if self.rate is None or self.num_rows is None:
            return None
        return self.prices.cost(self._scaled(self.rate.cpu_seconds), self._scaled(self.rate.gpu_seconds))

    def _scaled(self, value: float) -> float:
        assert self.rate is not None
        return value * (self.num_rows or 0) / self.rate.num_rows

    def __str__(self) -> str:
        """The estimate in one line."""
        if not self.num_shards:
            return f"{self.asset}: nothing to make"
        what = f"{self.asset}: {self.num_shards} shards to make"
        if self.num_rows is not None:
            what += f", {self.num_rows:,} rows"
        if self.rate is None or self.seconds is None or self.cost is None:
            return f"{what}; no earlier shard tells how long that takes"
        rate = self.rate
        return (
            f"{what}: about {clock(self.seconds)}, {self._scaled(rate.cpu_seconds) / 3600:.3g} CPU hours, "
            f"{self._scaled(rate.gpu_seconds) / 3600:.3g} GPU hours, cost {self.cost:.3g} "
            f"(by the {rate.num_shards} shards made before: {rate.num_rows:,} rows, "
            f"{rate.num_rows / rate.seconds:,.1f} rows/s)"
        )


def estimate_of(ws: Workspace, asset: str, num_shards: int, num_rows: int | None) -> RangeEstimate:
    """The estimate for so many shards and rows of a partitioned asset."""
    rate = rate_of(list(ws.lake.records(asset).values()))
    return RangeEstimate(asset, num_shards, num_rows, rate, Prices.here())


def rate_of(records: Sequence[Record]) -> Rate | None:
    """The rate of shards that were measured and had anything to make; None where there is none."""
    measured = [one for one in records if rows_computed(one) and one.seconds > 0 and one.cost is not None]
    if not measured:
        return None
    return Rate(
        num_shards=len(measured),
        num_rows=sum(map(rows_computed, measured)),
        seconds=sum(one.seconds for one in measured),
        cpu_seconds=sum(one.cpu_seconds for one in measured),
        gpu_seconds=sum(one.gpu_seconds for one in measured),
    )


def rows_computed(record: Record) -> int:
    """Rows that were worked on to make a shard."""
    return int(record.metadata.get(COMPUTED, record.metadata.get(_READ, 0)))


def rows_expected(ws: Workspace, shards: Sequence[str]) -> int | None:
    """Rows of source shards that are to be read: as many as last time, or as the others have; None for a first time."""
    known = {shard: rows_computed(record) for shard, record in ws.lake.records("raw_pairs").items()}
    if not known:
        return None
    usual = sum(known.values()) / len(known)
    return round(sum(known.get(shard, usual) for shard in shards))
