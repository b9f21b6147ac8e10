"""The asset ``latents``."""

from collections.abc import Iterator

import dagster as dg

from orchestration.asset_table import sharded_asset
from orchestration.resources import WorkspaceResource


@sharded_asset(
    group="diffusion",
    kinds={"parquet", "pytorch", "ray"},
    deps=["raw_pairs", "vae"],
)
def latents(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> Iterator:
    """Cached VAE latents of one shard."""
    from components.pipeline.latents import encode
    from orchestration.present import materialized_shards

    ws = workspace.open(context)
    yield from materialized_shards(context, ws, "latents", encode(ws, context.partition_keys))
