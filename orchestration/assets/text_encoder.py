"""The asset ``text_encoder``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="diffusion",
    kinds={"huggingface", "pytorch"},
    deps=["prompt_upsampler"],
)
def text_encoder(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """The prompt upsampler's encoder: the text encoder that conditions the U-Net."""
    from components.pipeline.latents import extract_text_encoder
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, extract_text_encoder(ws))
