"""A writer that is killed at any moment leaves nothing partial, and a rerun makes what an undisturbed run makes.

`make test` tries a few moments; `make chaos` tries every one.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from components.data.lake import Lake
from tests.s3 import FaultyProxy, Request
from tests.writers import AtFileEvent, AtFileSize, Watcher, contents, start

SURVIVED, KILLED = 0, -signal.SIGKILL


def watched_run(lake: Lake, expected: dict[str, bytes], process) -> int:
    """Read the lake while a process writes it; how the process ended."""
    with Watcher(lake, expected) as watcher:
        process.join()
    watcher.look()
    assert watcher.num_looks >= 2  # as the writing began, and when it was over; mostly many more
    assert watcher.wrong == []
    return process.exitcode


# ---------------------------------------------------------------------------------------------------------- local disk
@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    """What a writer that nobody kills leaves."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(str(folder / "lake"), folder / "scratch")
    process.join()
    assert process.exitcode == SURVIVED
    expected = contents(Lake(str(folder / "lake")))
    kinds = {Path(path).name.partition(".")[2] for path in expected}
    assert {"parquet", "json", "record.json", "bin", "sample.png"} <= kinds
    return expected


def killed_then_rerun(folder: Path, expected: dict[str, bytes], die: Callable[[str], None]) -> int:
    """Kill a writer, look, run it again undisturbed, look; how the first one ended."""
    uri = str(folder / "lake")
    lake = Lake(uri)
    ended = watched_run(lake, expected, start(uri, folder / "scratch", die=die))
    assert watched_run(lake, expected, start(uri, folder / "scratch")) == SURVIVED
    assert contents(lake) == expected
    return ended


@pytest.mark.parametrize("number", [2, 9, 26, 60, 90])
def test_a_writer_killed_between_two_steps_on_disk(number: int, tmp_path: Path, undisturbed) -> None:
    assert killed_then_rerun(tmp_path, undisturbed, AtFileEvent(number)) == KILLED


@pytest.mark.parametrize("limit", [40, 900, 20_000])
def test_a_writer_killed_in_the_midst_of_a_file_on_disk(limit: int, tmp_path: Path, undisturbed) -> None:
    assert killed_then_rerun(tmp_path, undisturbed, AtFileSize(limit)) == -signal.SIGXFSZ


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_writer_killed_at_every_step_on_disk(tmp_path: Path, undisturbed) -> None:
    number, ended = 0, KILLED
    while ended == KILLED:
        number += 1
        ended = killed_then_rerun(tmp_path / str(number), undisturbed, AtFileEvent(number))
    assert ended == SURVIVED
    assert number > 90


def test_two_writers_at_once_leave_what_one_leaves(tmp_path: Path, undisturbed) -> None:
    uri = str(tmp_path / "lake")
    both = [start(uri, tmp_path / f"scratch{i}") for i in range(2)]
    assert [watched_run(Lake(uri), undisturbed, process) for process in both] == [SURVIVED, SURVIVED]
    assert contents(Lake(uri)) == undisturbed


# ------------------------------------------------------------------------------------------------------------------ S3
class AtRequest:
    """Kill a writer as its n-th request that changes the bucket reaches the server: before it, half of it, after it."""

    def __init__(self, proxy: FaultyProxy, number: int, moment: str) -> None:
        self.proxy, self.number, self.moment = proxy, number, moment
        self.pid: int | None = None
        self.seen = 0

    def __call__(self, request: Request) -> str | None:
        if request.method not in ("PUT", "POST", "DELETE"):
            return None
        self.seen += 1
        if self.seen != self.number or self.pid is None:
            return None
        os.kill(self.pid, signal.SIGKILL)
        return {"before": "reset", "midway": "cut", "after": "reset_after"}[self.moment]


def killed_on_s3(
    bucket: str, folder: Path, expected: dict[str, bytes], s3: FaultyProxy, number: int, moment: str
) -> int:
    """Like :func:`killed_then_rerun`, with the server's view of when the writer dies."""
    uri = f"{bucket}/{number}-{moment}"
    lake = Lake(uri)
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    death = AtRequest(s3, number, moment)
    s3.watch = death
    process = start(uri, folder / "scratch", environment)
    death.pid = process.pid
    ended = watched_run(lake, expected, process)
    s3.watch = lambda _: None
    assert watched_run(lake, expected, start(uri, folder / "scratch", environment)) == SURVIVED
    assert contents(lake) == expected
    return ended


@pytest.mark.parametrize(("number", "moment"), [(4, "midway"), (12, "after"), (30, "before")])
def test_a_writer_killed_on_s3(
    number: int, moment: str, bucket: str, s3: FaultyProxy, tmp_path: Path, undisturbed
) -> None:
    assert killed_on_s3(bucket, tmp_path, undisturbed, s3, number, moment) == KILLED


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("moment", ["before", "midway", "after"])
def test_a_writer_killed_at_every_request_to_s3(
    moment: str, bucket: str, s3: FaultyProxy, tmp_path: Path, undisturbed
) -> None:
    number, ended = 0, KILLED
    while ended == KILLED:
        number += 1
        ended = killed_on_s3(bucket, tmp_path / str(number), undisturbed, s3, number, moment)
    assert ended == SURVIVED
    assert number > 30
