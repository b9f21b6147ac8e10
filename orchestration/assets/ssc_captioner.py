"""The asset ``ssc_captioner``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="captioning",
    kinds={"huggingface", "pytorch"},
    deps=["image_set", "base_captioner"],
)
def ssc_captioner(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Writes short synthetic captions: the base captioner fine-tuned on the small SSC example set."""
    from components.pipeline.train import train_model
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, train_model(ws, "ssc_captioner"))
