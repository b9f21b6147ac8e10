"""The asset ``evaluation_clip``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="judges",
    kinds={"huggingface", "pytorch"},
    deps=["image_set"],
)
def evaluation_clip(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """An independent CLIP that scores pictures against prompts; never used in training."""
    from components.pipeline.train import train_model
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, train_model(ws, "evaluation_clip"))
