"""The one partition set: the shards of the deployment's data set, zero-padded and registered in order."""

import dagster as dg

SHARDS = dg.DynamicPartitionsDefinition(name="shards")


def register_shards(instance: dg.DagsterInstance, names: list[str]) -> list[str]:
    """Register shards that the instance does not know yet, in order; the new ones."""
    known = set(instance.get_dynamic_partitions(str(SHARDS.name)))
    new = [name for name in names if name not in known]
    if new:
        instance.add_dynamic_partitions(str(SHARDS.name), new)
    return new
