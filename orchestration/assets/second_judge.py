"""The asset ``second_judge``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="judges",
    kinds={"pytorch"},
    deps=["image_set"],
)
def second_judge(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Reads pictures as the attribute judge does, trained from another seed on the other half of the rows.

    Where the two disagree on a generated picture, the report shows it; never used in training.
    """
    from components.pipeline.train import train_model
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, train_model(ws, "second_judge"))
