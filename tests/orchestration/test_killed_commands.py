"""Commands and runs that are killed hard: nothing of theirs keeps running, a rerun makes the missing shards only."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from components.data.lake import Lake
from tests.command_line import atelier, environment_for, run
from tests.processes import Hold, processes_of, wait_for_end

NUM_SHARDS, NUM_FINISHED = 4, 2  # the latter before the kill
INGEST = ["demo", "--until", "ingest", "--recipe", "smoke", "--set", f"data.max_shards={NUM_SHARDS}"]
INGEST += ["--set", "data.max_rows_per_shard=100"]
TRAIN = ["demo", "--until", "autoencoder", "--recipe", "smoke", "--set", "vae.training.num_steps=60"]
TRAIN += ["--set", "vae.training.checkpoint_every=20"]

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes by their environment in /proc")


@contextmanager
def started(home: Path, arguments: list[str], hold: Hold) -> Iterator[subprocess.Popen]:
    """A command at work, until one of its processes is held; what is left of it is killed at the end."""
    with (home.parent / "said").open("w") as said:
        environment = environment_for(home, **hold.environment)
        command = subprocess.Popen(atelier(*arguments), env=environment, stdout=said, stderr=said)
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


def finish(home: Path) -> str:
    """Run the command again, to its end; what it said."""
    done = run(INGEST, home)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(shards_of(home)) == NUM_SHARDS
    return done.stdout


@pytest.fixture
def ingesting(tmp_path: Path) -> Hold:
    """Holds the job that reads shards as it is about to keep the one after the first ``NUM_FINISHED``."""
    return Hold("*/lake/raw_pairs/*/current.json", NUM_FINISHED, tmp_path / "held")


def test_a_killed_command_leaves_no_process_and_its_rerun_makes_the_missing_shards_only(
    tmp_path: Path, ingesting: Hold, tell
) -> None:
    home = tmp_path / "home"
    with started(home, INGEST, ingesting) as command:
        ingesting.wait()
        command.kill()
        command.wait()
        seconds = wait_for_end(home)
    tell(f"atelier demo killed while it ingests: its processes were gone after {seconds:.1f} s")
    before = shards_of(home)
    assert len(before) == NUM_FINISHED
    assert finish(home).count("is up to date") == NUM_FINISHED
    after = shards_of(home)
    assert {shard: after[shard] for shard in before} == before
    last, killed = runs_of(home)
    assert last.status == dg.DagsterRunStatus.SUCCESS
    assert killed.is_finished


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_killed_job_is_started_once_more(tmp_path: Path, ingesting: Hold, tell) -> None:
    home = tmp_path / "home"
    with started(home, INGEST, ingesting) as command:
        ingesting.wait().kill()
        killed_at = time.monotonic()
        assert command.wait(900) == 0
        tell(f"job of atelier demo killed: the command did all of its work {time.monotonic() - killed_at:.0f} s later")
        wait_for_end(home)
    said = (tmp_path / "said").read_text()
    assert "killed by SIGKILL: started once more" in said
    assert said.count("is up to date") == NUM_FINISHED
    assert len(shards_of(home)) == NUM_SHARDS
    last, killed = runs_of(home)
    assert last.status == dg.DagsterRunStatus.SUCCESS
    assert killed.status == dg.DagsterRunStatus.FAILURE


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_training_that_is_killed_goes_on_from_its_checkpoint(tmp_path: Path, tell) -> None:
    home = tmp_path / "home"
    training = Hold("*/lake/checkpoints/*.pt", 1, tmp_path / "held")
    with started(home, TRAIN, training) as command:
        training.wait().kill()
        killed_at = time.monotonic()
        assert command.wait(900) == 0
    record = Lake(str(home / "lake")).record("vae", "model")
    assert record is not None
    first, last = record.metadata["losses"][0][0], record.metadata["losses"][-1][0]
    assert 20 < first <= 40
    assert last == 60
    seconds = time.monotonic() - killed_at
    tell(f"training of atelier demo killed: it went on from step 20 and ended {seconds:.0f} s later")
