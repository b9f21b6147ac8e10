"""``atelier rollback`` and the job ``rollback``: an earlier champion takes the place of the one in use.

What belongs here: arguments, the launchpad's form, and telling Dagster what changed, so that what was made from the
version that left shows as stale. What does not: the rollback itself (``components.pipeline.rollback``).
"""

import argparse
import getpass
from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field

from components.pipeline.rollback import ASSETS, GATED_BY_REPORT, in_use, roll_back
from components.pipeline.withdrawals import Rollback
from components.terminal import printable

from .lake_commands import LakeCommand
from .resources import WorkspaceResource

RollbackAsset = Enum("RollbackAsset", {name: name for name in ASSETS})


class RollbackConfig(dg.Config):
    """What is rolled back, to what, and for the record by whom and why."""

    asset: RollbackAsset = Field(  # pyright: ignore[reportInvalidTypeForm]  # made from a table
        description="Whose champion: champion_captioners, or a model asset."
    )
    version: str = Field(
        default="",
        description="The version to return to: a registry version (3 or name/3), or a data version such as "
        "ssc/1,dsc/1; empty takes the champion before this one.",
    )
    by: str = Field(default="", description="Who decided it; empty takes the user of the process.")
    why: str = Field(default="", description="Why, for those who find the version withdrawn.")


@dg.op(description="Puts an earlier champion in use again.")
def roll_champion_back(context: dg.OpExecutionContext, config: RollbackConfig, workspace: WorkspaceResource) -> None:
    """Roll back, and record it with the asset."""
    ws = workspace.open()
    done = roll_back(ws, config.asset.value, config.version or None, by=config.by or _user(), why=config.why)
    context.log.info("%s %s was %s", done.asset, done.from_version, done)
    context.log_event(_event(ws, done))


@dg.job
def rollback() -> None:
    """Takes a champion back: an earlier version is used again.

    The version that left is not promoted by a later evaluation, and what was made from it shows as stale.
    """
    roll_champion_back()


def _event(ws: Any, done: Rollback) -> dg.AssetMaterialization | dg.AssetObservation:
    """A new version in use is a materialization; where only an alias moved, the asset is as it was."""
    facts: dict[str, Any] = {"champion": done.to_version, "withdrawn": done.from_version, "by": done.by}
    told = f"{done.from_version} was {done}"
    metadata = {**facts, "why": done.why} if done.why else facts
    if done.asset in GATED_BY_REPORT:
        return dg.AssetObservation(done.asset, description=told, metadata=metadata)
    version = in_use(ws, done.asset).data_version
    return dg.AssetMaterialization(
        done.asset, description=told, metadata=metadata, tags={"dagster/data_version": version}
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


# ---------------------------------------------------------------------------------------------------------- terminal
def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("asset", choices=list(ASSETS), metavar="ASSET", help=", ".join(ASSETS))
    parser.add_argument("--to", metavar="VERSION", help="the version to return to; without, the champion before")
    parser.add_argument("--why", default="", help="for those who find the version withdrawn")
    parser.add_argument("--by", default="", help="who decided it; the user of this process where not given")


def _run(ws: Any, parsed: argparse.Namespace) -> int:
    done = roll_back(ws, parsed.asset, parsed.to, by=parsed.by or _user(), why=parsed.why)
    with dg.DagsterInstance.get() as instance:
        instance.report_runless_asset_event(_event(ws, done))
    print(f"{done.asset}: {done.to_version} is champion again")
    print(f"  {printable(f'{done.from_version} was {done}')}")
    print(f"  no gate promotes it again; to return to it: atelier rollback {done.asset} --to {done.from_version}")
    return 0


ROLLBACK_COMMAND = LakeCommand("rollback", "put an earlier champion in use again", _arguments, _run)
