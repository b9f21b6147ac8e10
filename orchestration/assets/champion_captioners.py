"""The asset ``champion_captioners``."""

from collections.abc import Iterator

import dagster as dg

from orchestration.asset_table import whole_asset
from orchestration.resources import WorkspaceResource


@whole_asset(
    group="captioning",
    kinds={"mlflow"},
    deps=["image_set", "ssc_captioner", "dsc_captioner", "clip"],
)
def champion_captioners(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> Iterator:
    """Which two captioner versions write captions now, set by their gate on held-out and golden pictures."""
    from components.pipeline.champions import GateFailed, choose_champions
    from orchestration.checks import check_results
    from orchestration.present import materialized

    ws = workspace.open(context)
    try:
        yield materialized(context, ws, choose_champions(ws))
    except GateFailed as failed:
        yield from check_results(failed.record.asset, [failed.record])
        raise
