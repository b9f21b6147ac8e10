"""The asset ``training_set``."""

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.automation import AS_PARENTS_CHANGE
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="data",
    kinds={"parquet"},
    deps=["image_set", "recaptioned"],
    automation_condition=AS_PARENTS_CHANGE,
)
def training_set(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """A manifest of the captions that may be trained on; it refuses a shard whose stored verdict is bad."""
    from components.pipeline.captions import build_training_set
    from orchestration.present import materialized

    ws = workspace.open(context)
    return materialized(context, ws, build_training_set(ws))
