"""The asset ``vae``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="diffusion",
    kinds={"huggingface", "pytorch"},
    deps=["image_set"],
)
def vae(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """AutoencoderKL: compresses pictures to the latents in which diffusion happens."""
    from components.pipeline.train import train_model
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, train_model(ws, "vae"))
