"""Captioning workers that are killed in the middle of recaptioning: the run ends with an undisturbed run's table."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from components.families.hub_captioner.config import HubCaptionerConfig
from components.pipeline.captions import recaption
from components.pipeline.graph import ORDER, make
from components.pipeline.ingest import shard_names
from components.pipeline.workspace import Workspace
from tests.checkpoints import save_blip
from tests.workspaces import scenes_workspace

NUM_SHARDS = 6
UNTRAINED = ("base_captioner", "ssc_captioner", "dsc_captioner")


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """Everything that recaptioning needs, with an untrained captioner that any worker can load."""
    model = HubCaptionerConfig(pretrained=save_blip(tmp_path / "blip"), max_new_tokens=4, min_side=32)
    overrides = {
        **{f"{asset}.model": model.model_dump_json() for asset in UNTRAINED},
        **{f"{asset}.training.num_steps": "0" for asset in UNTRAINED},
        "clip.training.num_steps": "1",
        "data.max_shards": str(NUM_SHARDS),
        "data.max_rows_per_shard": "32",
    }
    workspace = scenes_workspace(tmp_path, overrides)
    for asset in ORDER[: ORDER.index("recaptioned")]:
        make(workspace, asset)
    return workspace


def captioning_workers() -> set[int]:
    """Processes of this process's Ray cluster that hold a place in a map's pool."""
    children = psutil.Process().children(recursive=True)
    return {one.pid for one in children if any("MapWorker" in word for word in one.cmdline())}


def tables(ws: Workspace) -> dict[str, bytes]:
    return {shard: ws.lake.read_bytes(record.path) for shard, record in ws.lake.records("recaptioned").items()}


def test_recaptioning_goes_on_when_its_workers_are_killed(ws, ray_executor):
    shards = shard_names(ws)
    undisturbed = [result.outcome for result in recaption(ws, shards)]
    assert all(undisturbed)
    expected = tables(ws)
    ws = replace(ws.forced(), executor=ray_executor)
    results = recaption(ws, shards)
    first = next(results)
    assert first.failure is None
    killed = captioning_workers()
    assert killed
    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    rest, replaced = [], set()
    for result in results:
        rest.append(result)
        replaced |= captioning_workers() - killed
    assert replaced
    assert [result.failure for result in rest if result.failure] == []
    assert [first.shard, *(result.shard for result in rest)] == shards
    assert tables(ws) == expected
