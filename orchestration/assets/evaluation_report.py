"""The asset ``evaluation_report``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="evaluation",
    kinds={"mlflow", "pytorch"},
    deps=[
        "image_set",
        "training_set",
        "evaluation_clip",
        "attribute_judge",
        "second_judge",
        "vae",
        "prompt_upsampler",
        "latent_diffusion",
        "diffusion_decoder",
        "consistency_decoder",
        "recaptioned",
        "caption_blend_study",
    ],
)
def evaluation_report(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Metrics, galleries, plots and a verdict as JSON and self-contained HTML.

    Decides which models become champions.
    """
    from components.pipeline.report import evaluate
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, evaluate(ws))
