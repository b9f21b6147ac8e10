"""Commands and runs that are killed hard: nothing of theirs keeps running, a rerun makes the missing shards only."""

import os
import signal
import subprocess
import time
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
INGEST = ["demo", "--until", "ingest", "--recipe", "smoke", "--set", f"data.max_shards={NUM_SHARDS}"]
INGEST += ["--set", "data.max_rows_per_shard=3000"]
TRAIN = ["demo", "--until", "autoencoder", "--recipe", "smoke", "--set", "vae.training.num_steps=400"]
TRAIN += ["--set", "vae.training.checkpoint_every=20"]

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes by their environment in /proc")


@contextmanager
def started(home: Path, arguments: list[str]) -> Iterator[subprocess.Popen]:
    """A command at work; what is left of it is killed at the end."""
    with (home.parent / "said").open("w") as said:
        command = subprocess.Popen(atelier(*arguments), env=environment_for(home), stdout=said, stderr=said)
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
    done = run(INGEST, home)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(shards_of(home)) == NUM_SHARDS
    return done.stdout


def test_a_killed_command_leaves_no_process_and_its_rerun_makes_the_missing_shards_only(tmp_path: Path, tell) -> None:
    home = tmp_path / "home"
    with started(home, INGEST) as command:
        wait_until(lambda: shards_of(home), "a first shard", 600)
        command.kill()
        command.wait()
        seconds = wait_for_end(home)
    tell(f"atelier demo killed while it ingests: its processes were gone after {seconds:.1f} s")
    before = shards_of(home)
    assert 0 < len(before) < NUM_SHARDS
    assert finish(home).count("is up to date") == len(before)
    after = shards_of(home)
    assert {shard: after[shard] for shard in before} == before
    last, killed = runs_of(home)
    assert last.status == dg.DagsterRunStatus.SUCCESS
    assert killed.is_finished


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_killed_job_is_started_once_more(tmp_path: Path, tell) -> None:
    home = tmp_path / "home"
    with started(home, INGEST) as command:
        wait_until(lambda: shards_of(home), "a first shard", 600)
        (job,) = jobs_of(home)
        os.kill(job.pid, signal.SIGKILL)
        before = shards_of(home)
        killed_at = time.monotonic()
        assert command.wait(900) == 0
        tell(f"job of atelier demo killed: the command did all of its work {time.monotonic() - killed_at:.0f} s later")
        assert processes_of(home) == []
    said = (tmp_path / "said").read_text()
    assert "killed by SIGKILL: started once more" in said
    assert said.count("is up to date") >= len(before) > 0
    assert len(shards_of(home)) == NUM_SHARDS
    last, killed = runs_of(home)
    assert last.status == dg.DagsterRunStatus.SUCCESS
    assert killed.status == dg.DagsterRunStatus.FAILURE


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_training_that_is_killed_goes_on_from_its_checkpoint(tmp_path: Path, tell) -> None:
    home = tmp_path / "home"
    lake = Lake(str(home / "lake"))
    with started(home, TRAIN) as command:
        wait_until(lambda: any(path.endswith(".pt") for path in lake.files("checkpoints")), "a first checkpoint", 900)
        (job,) = jobs_of(home)
        job.kill()
        killed_at = time.monotonic()
        assert command.wait(900) == 0
    record = lake.record("vae", "model")
    assert record is not None
    first, last = record.metadata["losses"][0][0], record.metadata["losses"][-1][0]
    assert first > 20
    assert last == 400
    seconds = time.monotonic() - killed_at
    tell(f"training of atelier demo killed: it went on from step {first - 5} and ended {seconds:.0f} s later")
