"""Captioning workers that are killed in the middle of recaptioning: the run ends with an undisturbed run's table."""

import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Self

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


class KilledAtWork(Thread):
    """Kills the first ``count`` captioning workers of this process's Ray cluster, each while it captions."""

    def __init__(self, count: int) -> None:
        super().__init__(daemon=True)
        self.count = count
        self.killed: set[int] = set()
        self.others: set[int] = set()
        self._is_over = Event()

    def run(self) -> None:
        while not self._is_over.wait(0.02):
            for worker in captioning_workers() - self.killed:
                if len(self.killed) < self.count:
                    os.kill(worker, signal.SIGKILL)
                    self.killed.add(worker)
                else:
                    self.others.add(worker)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()


def captioning_workers() -> set[int]:
    """Processes of this process's Ray cluster that work on an item of a map, by the title that Ray gives them."""
    working = set()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "".join(child.cmdline()).rstrip().endswith("MapWorker(MapBatches(_Worker)).submit"):
                working.add(child.pid)
    return working


def tables(ws: Workspace) -> dict[str, bytes]:
    return {shard: ws.lake.read_bytes(record.path) for shard, record in ws.lake.records("recaptioned").items()}


def test_recaptioning_goes_on_when_its_workers_are_killed(ws, ray_executor):
    shards = shard_names(ws)
    undisturbed = [result.outcome for result in recaption(ws, shards)]
    assert all(undisturbed)
    expected = tables(ws)
    with KilledAtWork(count=2) as workers:
        results = list(recaption(replace(ws.forced(), executor=ray_executor), shards))
    assert len(workers.killed) == 2
    assert workers.others
    assert [result.failure for result in results if result.failure] == []
    assert [result.shard for result in results] == shards
    assert tables(ws) == expected
