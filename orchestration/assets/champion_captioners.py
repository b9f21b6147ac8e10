"""The asset ``champion_captioners``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="captioning",
    kinds={"mlflow"},
    deps=["image_set", "ssc_captioner", "dsc_captioner", "clip"],
)
def champion_captioners(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Which two captioner versions write captions now, set by their gate on held-out pictures."""
    from components.pipeline.captions import choose_champions
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, choose_champions(ws))
