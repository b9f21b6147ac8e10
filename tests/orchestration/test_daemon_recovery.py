"""A real daemon: it retries a run whose process was killed, and catches up with ticks that it missed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from components.data.lake import Lake
from orchestration.home import LAPTOP
from orchestration.launch import Target
from tests.command_line import atelier, environment_for
from tests.processes import Hold, processes_of, wait_for_end, wait_until
from tests.servers import free_ports, serving

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]
NUM_SHARDS, NUM_FINISHED = 4, 2  # the latter before the kill
TARGET = Target("scenes", "smoke", {"data.max_shards": str(NUM_SHARDS), "data.max_rows_per_shard": "100"})

EACH_MINUTE = """
import dagster as dg
from orchestration import definitions  # one Definitions object at most may be a name of this module

@dg.schedule(cron_schedule="* * * * *", job_name="images", default_status=dg.DefaultScheduleStatus.RUNNING)
def each_minute(context):
    return dg.SkipReason(f"looked at {context.scheduled_execution_time:%H:%M}")

defs = dg.Definitions.merge(definitions.defs, dg.Definitions(schedules=[each_minute]))
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A deployment on a laptop; whatever of it still lives at the end is killed."""
    folder = tmp_path / "home"
    (folder / "dagster").mkdir(parents=True)
    (folder / "dagster" / "dagster.yaml").write_text(LAPTOP)
    yield folder
    for process in processes_of(folder):
        process.kill()


def environment(home: Path) -> dict[str, str]:
    return environment_for(home, DAGSTER_HOME=str(home / "dagster"), ATELIER_RECIPE="smoke", ATELIER_DATASET="scenes")


@contextmanager
def daemon(home: Path, module: list[str], added: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen]:
    """``dagster-daemon run`` with a code location; it is killed at the end, as a machine that goes down would do it."""
    with (home / "daemon.log").open("a") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster._daemon", "run", *module],
            env=environment(home) | dict(added or {}), stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def instance_of(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        yield instance


def test_a_run_whose_process_is_killed_is_retried_and_makes_the_missing_shards_only(home: Path, tell) -> None:
    hold = Hold("*/lake/raw_pairs/*/current.json", NUM_FINISHED, home / "held")
    with daemon(home, ["-m", "orchestration.definitions"], hold.environment), instance_of(home) as instance:
        shards = [f"{number:05d}" for number in range(NUM_SHARDS)]
        instance.add_dynamic_partitions("shards", shards)
        tags = {"dagster/asset_partition_range_start": shards[0], "dagster/asset_partition_range_end": shards[-1]}
        launch = ["job", "launch", "-m", "orchestration.definitions", "-j", "ingest"]
        subprocess.run(
            [sys.executable, "-m", "dagster", *launch, "--config-json", json.dumps(TARGET.run_config()),
             "--tags", json.dumps(tags)], env=environment(home), check=True, capture_output=True,
        )  # fmt: skip
        lake = Lake(str(home / "lake"))
        hold.wait().kill()
        (first,) = instance.get_runs()
        before, killed_at = lake.records("raw_pairs"), time.monotonic()
        assert len(before) == NUM_FINISHED
        wait_until(lambda: instance.get_run_by_id(first.run_id).status == dg.DagsterRunStatus.FAILURE, "its end")
        told = time.monotonic() - killed_at
        wait_until(lambda: len(instance.get_runs()) == 2, "a retry")
        retried = time.monotonic() - killed_at
        wait_until(lambda: instance.get_runs(limit=1)[0].is_finished, "the end of the retry")
        again = instance.get_runs(limit=1)[0]
        assert again.status == dg.DagsterRunStatus.SUCCESS
        assert (again.parent_run_id, again.tags["dagster/retry_number"]) == (first.run_id, "1")
        made = instance.get_records_for_run(again.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
        reused = {one.partition_key for one in made if one.asset_materialization.metadata["reused"].value}
        assert reused == set(before)
        after = lake.records("raw_pairs")
        assert len(after) == NUM_SHARDS
        assert {shard: after[shard] for shard in before} == before
    tell(f"process of a daemon's run killed: told as failed after {told:.0f} s, retried after {retried:.0f} s")


def test_a_daemon_that_was_down_looks_once_for_all_the_ticks_that_it_missed(home: Path, tell) -> None:
    module = home / "each_minute.py"
    module.write_text(EACH_MINUTE)
    with instance_of(home) as instance:

        def ticks() -> list[float]:
            return sorted(
                tick.timestamp
                for state in instance.all_instigator_state()
                for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
                if state.instigator_name == "each_minute"
            )

        with daemon(home, ["-f", str(module)]):
            wait_until(ticks, "a first tick")
        before = ticks()
        time.sleep(max(0.0, before[-1] + 130 - time.time()))  # two ticks and more are missed
        started = time.time()
        with daemon(home, ["-f", str(module)]):
            wait_until(lambda: len(ticks()) > len(before), "the tick that catches up")
        caught_up = ticks()[len(before)]
    assert caught_up - before[-1] >= 120
    tell(f"daemon down for {started - before[-1]:.0f} s: one tick, {time.time() - started:.0f} s after it was back")


def test_a_deployment_that_is_killed_as_a_whole_leaves_no_process(home: Path, tell) -> None:
    """``atelier dev``: the servers, the daemon and the code server end with the command that started them."""
    urls = [f"http://127.0.0.1:{port}" for port in free_ports(2)]
    added = dict(zip(("ATELIER_DAGSTER_URL", "ATELIER_MLFLOW_URL"), urls, strict=True))
    answers_at = [f"{urls[0]}/server_info", f"{urls[1]}/version"]
    with serving(atelier("dev", "--recipe", "smoke"), environment(home) | added, answers_at) as command:
        wait_until(lambda: len(processes_of(home)) >= 7, "all servers")
        number = len(processes_of(home))
        command.kill()
        command.wait()
        seconds = wait_for_end(home)
    tell(f"atelier dev killed: its {number} processes were gone after {seconds:.0f} s")
