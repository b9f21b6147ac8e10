"""Commands and runs that are killed hard: nothing of theirs keeps running, and a rerun makes the missing shards only."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest

from components.data.lake import Lake
from tests.command_line import atelier, environment_for, run
from tests.processes import processes_of, wait_for_end, wait_until

NUM_SHARDS = 8
INGEST = ["demo", "--until", "ingest", "--recipe", "smoke"]
LARGE = ["--set", f"data.max_shards={NUM_SHARDS}", "--set", "data.max_rows_per_shard=3000"]

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes by their environment in /proc")


@contextmanager
def started(home: Path) -> Iterator[subprocess.Popen]:
    """The command that ingests eight shards; what is left of it is killed at the end."""
    with (home.parent / "said").open("w") as said:
        command = subprocess.Popen(atelier(*INGEST, *LARGE), env=environment_for(home), stdout=said, stderr=said)
    try:
        yield command
    finally:
        for process in processes_of(home):
            process.kill()
        command.wait()


def shards_of(home: Path) -> dict[str, str]:
    """Shards that are finished, with the digests of their content."""
    return {shard: record.data_version for shard, record in Lake(str(home / "lake")).records("raw_pairs").items()}


def runs_of(home: Path) -> list[dg.DagsterRun]:
    """The deployment's Dagster runs, the newest first."""
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        return list(instance.get_runs())


def jobs_of(home: Path) -> list[psutil.Process]:
    """Processes of the deployment's jobs."""
    return [one for one in processes_of(home) if {"orchestration.cli", "run"} <= set(one.cmdline())]


def finish(home: Path) -> str:
    """Run the command again, to its end; what it said."""
    done = run([*INGEST, *LARGE], home)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(shards_of(home)) == NUM_SHARDS
    return done.stdout


def test_a_killed_command_leaves_no_process_and_its_rerun_makes_the_missing_shards_only(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started(home) as command:
        wait_until(lambda: shards_of(home), "a first shard")
        command.kill()
        command.wait()
        seconds = wait_for_end(home)
    print(f"all processes were gone after {seconds:.1f} s")
    before = shards_of(home)
    assert 0 < len(before) < NUM_SHARDS
    assert finish(home).count("is up to date") == len(before)
    after = shards_of(home)
    assert {shard: after[shard] for shard in before} == before
    last, killed = runs_of(home)
    assert last.status == dg.DagsterRunStatus.SUCCESS
    assert killed.is_finished


@pytest.mark.chaos
def test_a_killed_job_is_started_once_more(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started(home) as command:
        wait_until(lambda: shards_of(home), "a first shard")
        (job,) = jobs_of(home)
        os.kill(job.pid, signal.SIGKILL)
        before = shards_of(home)
        assert command.wait(300) == 0
        assert processes_of(home) == []
    said = (tmp_path / "said").read_text()
    assert "killed by SIGKILL: started once more" in said
    assert said.count("is up to date") >= len(before) > 0
    assert len(shards_of(home)) == NUM_SHARDS
    last, killed = runs_of(home)
    assert last.status == dg.DagsterRunStatus.SUCCESS
    assert killed.status == dg.DagsterRunStatus.FAILURE
