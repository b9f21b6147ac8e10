"""The asset ``clip``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="captioning",
    kinds={"huggingface", "pytorch"},
    deps=["image_set"],
)
def clip(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """CLIP trained on the raw captions: scores captions, and gives the base captioner its text space."""
    from components.pipeline.train import train_model
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, train_model(ws, "clip"))
