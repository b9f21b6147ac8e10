"""A run whose process is gone is marked as failed; one that lives, or of which nothing is known here, is left alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import dagster as dg
import pytest

from orchestration import liveness
from orchestration.liveness import dead_runs, end_dead_runs, hold
from orchestration.resources import WorkspaceResource

HOLD = """
import sys, time
from orchestration.liveness import hold
for run_id in sys.argv[1:]:
    hold(run_id)
print("holds", flush=True)
time.sleep(600)
"""


@dg.op
def nothing() -> None: ...


@dg.job
def work() -> None:
    nothing()


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr(liveness, "_held", {})
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def started(instance: dg.DagsterInstance) -> dg.DagsterRun:
    return instance.create_run_for_job(work, status=dg.DagsterRunStatus.STARTED)


def status_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_only_runs_whose_process_is_gone_are_ended(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    killed, alive, elsewhere, finished = (started(instance) for _ in range(4))
    instance.report_run_failed(finished)
    command = [sys.executable, "-c", HOLD, killed.run_id, finished.run_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        hold(alive.run_id)
        assert end_dead_runs(instance) == []
        os.kill(process.pid, signal.SIGKILL)
    assert end_dead_runs(instance) == [killed.run_id]
    assert status_of(instance, killed) == dg.DagsterRunStatus.FAILURE
    assert any("gone without a word" in event.message for event in instance.all_logs(killed.run_id))
    assert status_of(instance, alive) == status_of(instance, elsewhere) == dg.DagsterRunStatus.STARTED
    assert [path.name for path in (tmp_path / "running").iterdir()] == [alive.run_id]
    assert end_dead_runs(instance) == []


def test_a_run_that_starts_looks_for_dead_ones_on_its_machine(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """As on a Ray head, which no sensor looks into; so locks of finished runs go, too."""
    killed, finished, mine = (started(instance) for _ in range(3))
    instance.report_run_failed(finished)
    command = [sys.executable, "-c", HOLD, killed.run_id, finished.run_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        os.kill(process.pid, signal.SIGKILL)
    context = cast(dg.InitResourceContext, SimpleNamespace(run=mine, instance=instance))
    WorkspaceResource.model_construct().setup_for_execution(context)
    assert status_of(instance, killed) == dg.DagsterRunStatus.FAILURE
    assert status_of(instance, mine) == dg.DagsterRunStatus.STARTED
    assert [path.name for path in (tmp_path / "running").iterdir()] == [mine.run_id]


def test_the_sensor_says_what_it_found(instance: dg.DagsterInstance) -> None:
    context = dg.build_sensor_context(instance=instance)
    assert dead_runs(context).skip_message == "every run has its process"


def test_without_a_lasting_instance_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    hold("a-run")
    assert list(tmp_path.iterdir()) == []
