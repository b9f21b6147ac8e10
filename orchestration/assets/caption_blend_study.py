"""The asset ``caption_blend_study``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.partitions import STUDY_ARMS
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="evaluation",
    kinds={"huggingface", "pytorch"},
    deps=[
        "training_set",
        dg.AssetDep("latents", partition_mapping=dg.AllPartitionMapping()),
        "vae",
        "text_encoder",
        "prompt_upsampler",
        "evaluation_clip",
        "attribute_judge",
    ],
    partitions_def=STUDY_ARMS,
)
def caption_blend_study(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """The text-to-image model on another blend of captions: equal steps, data and model, one arm per blend and seed.

    Each arm is measured on the same held-out prompts, during training and at its end.
    """
    from components.pipeline.study import train_arm
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, train_arm(ws, context.partition_key))
