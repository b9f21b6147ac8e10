"""The asset ``recaptioned``."""

from collections.abc import Iterator

import dagster as dg

from orchestration.asset_table import sharded_asset
from orchestration.resources import WorkspaceResource


@sharded_asset(
    group="captioning",
    kinds={"parquet", "pytorch", "ray"},
    deps=["raw_pairs", "champion_captioners", "clip"],
    pool="captioner",
)
def recaptioned(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> Iterator:
    """Short and descriptive captions of one shard.

    Who wrote them, their CLIP scores and a verdict; no picture bytes.
    """
    from components.pipeline.captions import recaption
    from orchestration.present import materialized_shards

    ws = workspace.open(context)
    yield from materialized_shards(context, ws, "recaptioned", recaption(ws, context.partition_keys))
