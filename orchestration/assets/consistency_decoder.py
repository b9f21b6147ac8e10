"""The asset ``consistency_decoder``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="decoder",
    kinds={"huggingface", "pytorch"},
    deps=["image_set", "vae", "latents", "diffusion_decoder"],
)
def consistency_decoder(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """The student: the diffusion decoder distilled to two steps, saved as a ConsistencyDecoderVAE."""
    from components.pipeline.train import train_model
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, train_model(ws, "consistency_decoder"))
