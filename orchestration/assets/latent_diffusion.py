"""The asset ``latent_diffusion``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="diffusion",
    kinds={"huggingface", "pytorch"},
    deps=["training_set", "latents", "vae", "text_encoder"],
)
def latent_diffusion(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """The text-to-image model.

    A U-Net trained on a blend of DSC and raw captions, saved as a StableDiffusionPipeline with EMA weights.
    """
    from components.pipeline.train import train_model
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, train_model(ws, "latent_diffusion"))
