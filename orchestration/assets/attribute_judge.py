"""The asset ``attribute_judge``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="judges",
    kinds={"pytorch"},
    deps=["image_set"],
)
def attribute_judge(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Reads shapes, colours, sizes, places and background off a picture; never used in training.

    Only data sets with ground truth have one.
    """
    from components.pipeline.train import train_model
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, train_model(ws, "attribute_judge"))
