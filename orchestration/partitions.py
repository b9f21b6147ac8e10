"""The partition sets: the shards of the deployment's data set, registered in order, and the arms of the study."""

from collections.abc import Collection, Sequence
from itertools import groupby

import dagster as dg

from components.pipeline.study import ARMS

SHARDS = dg.DynamicPartitionsDefinition(name="shards")
STUDY_ARMS = dg.StaticPartitionsDefinition(list(ARMS))


def register_shards(instance: dg.DagsterInstance, names: list[str]) -> list[str]:
    """Register shards that the instance does not know yet, in order; the new ones."""
    known = set(instance.get_dynamic_partitions(str(SHARDS.name)))
    new = [name for name in names if name not in known]
    if new:
        instance.add_dynamic_partitions(str(SHARDS.name), new)
    return new


def ranges_of(registered: Sequence[str], wanted: Collection[str]) -> list[list[str]]:
    """The wanted shards cut into ranges as Dagster knows them: neighbours in the order of registration."""
    numbered = [(place, shard) for place, shard in enumerate(registered) if shard in wanted]
    ranges = groupby(enumerate(numbered), key=lambda one: one[0] - one[1][0])
    return [[shard for _, (_, shard) in each] for _, each in ranges]


def range_tags(shards: Sequence[str]) -> dict[str, str]:
    """Tags of a run over a range of shards."""
    return {"dagster/asset_partition_range_start": shards[0], "dagster/asset_partition_range_end": shards[-1]}
