"""The partition sets: the shards of the deployment's data set, registered in order, and the arms of the study."""

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
