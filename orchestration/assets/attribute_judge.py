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
    """Reads shapes, colours.

    Sizes, places and background off a picture, where the data set has ground truth; never used in training.
    """
    from components.pipeline.train import train_model
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, train_model(ws, "attribute_judge"))
