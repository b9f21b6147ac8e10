"""The asset ``raw_pairs``."""

from collections.abc import Iterator

import dagster as dg

from orchestration.asset_table import sharded_asset
from orchestration.resources import WorkspaceResource


@sharded_asset(
    group="data",
    kinds={"parquet", "ray"},
    deps=[],
)
def raw_pairs(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> Iterator:
    """Checked image-caption rows of one source shard; rejected rows lie beside them with their reasons."""
    from components.pipeline.ingest import ingest
    from orchestration.present import materialized_shards

    ws = workspace.open(context)
    yield from materialized_shards(context, ws, "raw_pairs", ingest(ws, context.partition_keys))
