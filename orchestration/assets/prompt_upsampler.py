"""The asset ``prompt_upsampler``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="diffusion",
    kinds={"huggingface", "pytorch"},
    deps=["training_set"],
)
def prompt_upsampler(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """A small T5 that turns a short prompt into a descriptive one, trained on ssc -> dsc."""
    from components.pipeline.train import train_model
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, train_model(ws, "prompt_upsampler"))
