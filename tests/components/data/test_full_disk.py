"""A disk that fills up: the error names the place, its free space and the remedy, and the next run goes on."""

import os
import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.data.lake import Lake, LakeError
from components.data.scratch import Scratch
from components.data.storage import StorageError
from components.pipeline.ingest import ingest, shard_names
from components.pipeline.workspace import Workspace
from components.training.checkpoint import Checkpoints
from tests.workspaces import scenes_workspace
from tests.writers import contents

MIB = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MiB. Mounting one needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leaving: int) -> Path:
    """Fill a disk up to some bytes; the file that does it."""
    state = os.statvfs(disk)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, state.f_bavail * state.f_frsize - leaving)))
    return ballast


def in_words(folder: Path) -> str:
    """What must be said of a full disk, as a pattern."""
    return rf"{folder}.* cannot be written: .*has \d\.\d of 3 MiB free.*atelier gc.*ATELIER_LAKE.*run the same command"


def problems(ws: Workspace) -> list[str]:
    """What stopped shards from being ingested, in words."""
    try:
        return [result.failure for result in ingest(ws, shard_names(ws)) if result.failure]
    except StorageError as error:
        return [str(error)]


def test_shards_that_do_not_fit_are_named_and_made_by_the_next_run(disk: Path, tmp_path: Path) -> None:
    overrides = {"data.max_shards": "4", "data.max_rows_per_shard": "256"}
    undisturbed = scenes_workspace(tmp_path / "undisturbed", overrides)
    assert problems(undisturbed) == []
    size = sum(info.num_bytes for info in undisturbed.lake.files().values())
    ws = replace(undisturbed, lake=Lake(str(disk / "lake")))
    ballast = fill(disk, leaving=int(size * 0.6))
    found = problems(ws)
    assert found
    for problem in found:
        assert re.search(in_words(disk), problem)
    whole = contents(undisturbed.lake)
    assert contents(ws.lake).items() <= whole.items()
    assert 0 < len(ws.lake.records("raw_pairs")) < 4
    ballast.unlink()
    assert problems(ws) == []
    assert contents(ws.lake) == whole


def test_a_full_lake_is_refused_before_any_work(disk: Path) -> None:
    lake = Lake(str(disk / "lake"))
    lake.check_writable()
    fill(disk, leaving=0)
    with pytest.raises(LakeError, match=r"is not writable .*0\.0 of 3 MiB free"):
        lake.check_writable()


def test_rows_that_do_not_fit_into_the_scratch_folder_kill_nobody(disk: Path, tmp_path: Path) -> None:
    scratch = Scratch(Lake(str(tmp_path / "lake")), disk / "scratch")
    ballast = fill(disk, leaving=MIB)
    shape, rows = (64, 256, 256), (np.full((256, 256), row, np.uint8) for row in range(64))
    with pytest.raises(StorageError, match=in_words(disk)):
        scratch.array("pixels.npy", shape, np.dtype(np.uint8), rows)
    assert [path for path in (disk / "scratch").iterdir() if path.suffix != ".lock"] == []
    ballast.unlink()
    rows = (np.full((256, 256), row, np.uint8) for row in range(32))
    assert scratch.array("pixels.npy", (32, 256, 256), np.dtype(np.uint8), rows)[31, 5, 5] == 31


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(disk: Path) -> None:
    checkpoints = Checkpoints(Lake(str(disk / "lake")), "checkpoints/vae-f")
    checkpoints.save(1, {"step": 1, "weights": torch.zeros(1000)})
    fill(disk, leaving=MIB)
    with pytest.raises(StorageError, match=in_words(disk)):
        checkpoints.save(2, {"step": 2, "weights": torch.zeros(MIB)})
    assert checkpoints.steps() == [1]
    assert checkpoints.load()["step"] == 1


@pytest.fixture
def limited() -> Iterator[None]:
    """No file may grow beyond 100 kB; the kernel's signal for it becomes an error. Needs no root."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


def test_a_file_that_may_not_grow_is_named_and_absent(limited, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    for write in (
        lambda: lake.write_bytes("big", bytes(MIB)),
        lambda: Scratch(lake, tmp_path).array("rows.npy", (MIB,), np.dtype(np.uint8), ()),
    ):
        with pytest.raises(StorageError, match=r"cannot be written: .*MiB free.*run the same command"):
            write()
    assert list(lake.files()) == []
    assert not list(tmp_path.glob("rows.npy*.partial"))
