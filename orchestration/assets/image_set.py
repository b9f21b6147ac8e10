"""The asset ``image_set``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.automation import AS_PARENTS_CHANGE
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="data",
    kinds={"parquet"},
    deps=["raw_pairs"],
    automation_condition=AS_PARENTS_CHANGE,
)
def image_set(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """A manifest of all shards of raw_pairs.

    Part files, digests, row counts, splits, examples, opt-outs. Everything that learns from pictures reads this,
    never a folder listing.
    """
    from components.pipeline.ingest import build_image_set
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, build_image_set(ws))
