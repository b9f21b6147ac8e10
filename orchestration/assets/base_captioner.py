"""The asset ``base_captioner``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="captioning",
    kinds={"huggingface", "pytorch"},
    deps=["image_set", "clip"],
)
def base_captioner(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """A language model conditioned on the picture.

    Trained on raw captions with a captioning and a contrastive objective (CoCa).
    """
    from components.pipeline.train import train_model
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, train_model(ws, "base_captioner"))
