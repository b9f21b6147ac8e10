"""The asset ``diffusion_decoder``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="decoder",
    kinds={"huggingface", "pytorch"},
    deps=["image_set", "vae", "latents"],
)
def diffusion_decoder(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """The teacher: a pixel-space diffusion decoder conditioned on the VAE's latents."""
    from components.pipeline.train import train_model
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, train_model(ws, "diffusion_decoder"))
