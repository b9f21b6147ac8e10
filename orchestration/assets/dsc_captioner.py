"""The asset ``dsc_captioner``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="captioning",
    kinds={"huggingface", "pytorch"},
    deps=["image_set", "base_captioner"],
)
def dsc_captioner(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Writes descriptive synthetic captions.

    The same base captioner fine-tuned on the small DSC example set, independently of SSC.
    """
    from components.pipeline.train import train_model
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, train_model(ws, "dsc_captioner"))
