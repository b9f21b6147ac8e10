"""S3 away for a while in the middle of a run: short enough, nobody notices; too long, the next run makes the rest."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from components.data.lake import Lake
from components.pipeline.graph import make
from components.pipeline.ingest import ingest, shard_names
from components.pipeline.workspace import Workspace
from tests.s3 import FaultyProxy, Request
from tests.workspaces import scenes_workspace
from tests.writers import contents

NUM_SHARDS = 4


@dataclass
class Absence:
    """So many requests are reset, from the first one on that writes a part of this shard."""

    shard: str
    num_requests: float
    has_begun: bool = False

    def __call__(self, request: Request) -> str | None:
        self.has_begun |= request.method == "PUT" and f"raw_pairs/{self.shard}/" in request.path
        if not self.has_begun or self.num_requests <= 0:
            return None
        self.num_requests -= 1
        return "reset"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Workspace]:
    """A workspace on any lake; the source is the same."""
    ws = scenes_workspace(
        tmp_path_factory.mktemp("s3"), {"data.max_shards": str(NUM_SHARDS), "data.max_rows_per_shard": "32"}
    )
    return lambda uri: replace(ws, lake=Lake(uri))


@pytest.fixture(scope="module")
def undisturbed(opened: Callable[[str], Workspace], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    ws = opened(str(tmp_path_factory.mktemp("undisturbed") / "lake"))
    for asset in ("raw_pairs", "image_set"):
        make(ws, asset)
    return contents(ws.lake)


def test_a_run_outlasts_s3_that_is_away_for_some_requests(opened, undisturbed, bucket: str, s3: FaultyProxy) -> None:
    ws = opened(f"{bucket}/lake")
    s3.watch = absence = Absence("00001", 3)  # of five attempts
    for asset in ("raw_pairs", "image_set"):
        make(ws, asset)
    assert absence.num_requests == 0
    assert contents(ws.lake) == undisturbed


def test_what_s3_did_not_take_is_made_by_the_next_run(
    opened, undisturbed, bucket: str, s3: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    ws = opened(f"{bucket}/lake")
    s3.watch = Absence("00002", math.inf)
    with pytest.raises(RuntimeError, match=r"2 of 4 .*cannot be .*AWS_ENDPOINT_URL.*run the same command again"):
        make(ws, "raw_pairs")
    s3.watch = lambda _: None
    assert set(ws.lake.records("raw_pairs")) == {"00000", "00001"}
    reused = [result.shard for result in ingest(ws, shard_names(ws)) if result.outcome and result.outcome.is_reused]
    assert reused == ["00000", "00001"]
    make(ws, "image_set")
    assert contents(ws.lake) == undisturbed
