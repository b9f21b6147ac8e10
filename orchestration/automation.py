"""Sensors: what happens without a person asking.

What belongs here: ticks that register shards. What does not: any work on them (jobs do that).
"""

import dagster as dg

from .partitions import register_shards
from .resources import WorkspaceResource


@dg.sensor(
    name="source_shards",
    job_name="ingest",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers the shards of the deployment's data set as partitions, in order; it starts no run.",
)
def source_shards(context: dg.SensorEvaluationContext, workspace: WorkspaceResource) -> dg.SkipReason:
    """Register new shards of the source."""
    from components.pipeline.ingest import shard_names

    new = register_shards(context.instance, shard_names(workspace.open()))
    return dg.SkipReason(f"registered {len(new)} new shards" if new else "no new shards")


SENSORS = [source_shards]
