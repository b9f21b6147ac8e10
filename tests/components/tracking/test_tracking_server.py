"""A tracking server on PostgreSQL with its artifacts on S3, behind a proxy that makes it go away for a while."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from PIL import Image

from components.contracts import ModelVersion
from components.pipeline.graph import make
from components.pipeline.train import fit_stage, train_model
from components.pipeline.workspace import Workspace
from components.tracking import open_tracker
from components.tracking.outage import TrackerAway
from tests.s3 import FaultyProxy, Request
from tests.workspaces import scenes_workspace

NUM_STEPS = 12


@dataclass
class Road:
    """The way to the server: it is closed for some seconds from a certain note of metrics on."""

    proxy: FaultyProxy
    open_notes: int = sys.maxsize
    seconds: float = 0.0
    closed_until: float = 0.0
    num_turned_back: int = 0

    def __post_init__(self) -> None:
        self.proxy.watch = self.look

    def close_after(self, notes: int, seconds: float) -> None:
        self.open_notes, self.seconds = notes, seconds

    def open(self) -> None:
        self.open_notes, self.closed_until = sys.maxsize, 0.0

    def look(self, request: Request) -> str | None:
        if b'"metrics": [{' in request.data:
            self.open_notes -= 1
            if self.open_notes == -1:
                self.closed_until = time.monotonic() + self.seconds
        if time.monotonic() < self.closed_until:
            self.num_turned_back += 1
            return "reset"
        return None


@pytest.fixture
def road(tracking_server: str) -> Iterator[Road]:
    proxy = FaultyProxy(tracking_server)
    yield Road(proxy)
    proxy.close()


@pytest.fixture
def ws(road: Road, tmp_path: Path) -> Workspace:
    """A workspace whose tracker is the server; the pictures are there, no model is."""
    overrides = {
        "vae.training.num_steps": str(NUM_STEPS),
        "vae.training.log_every": "1",
        "data.max_shards": "1",
        "data.max_rows_per_shard": "64",
    }
    workspace = replace(scenes_workspace(tmp_path, overrides), tracker=open_tracker(road.proxy.endpoint))
    for asset in ("raw_pairs", "image_set"):
        make(workspace, asset)
    return workspace


def client_of(road: Road):
    from mlflow import MlflowClient

    return MlflowClient(road.proxy.endpoint)


def logged_steps(road: Road, run_id: str) -> list[int]:
    """The steps of which the server has a loss; one that was logged again stands there twice."""
    client = client_of(road)
    name = next(name for name in client.get_run(run_id).data.metrics if name.endswith("/loss"))
    return sorted({metric.step for metric in client.get_metric_history(run_id, name)})


# --------------------------------------------------------------------------------------------------------- undisturbed
def test_runs_lie_in_postgres_and_artifacts_in_the_bucket(road: Road, s3: FaultyProxy, artifacts: str) -> None:
    import s3fs

    tracker = open_tracker(road.proxy.endpoint)
    tracker.prepare()
    run = tracker.start("clip", {"training": {"steps": 3}}, {"dagster.run_id": "abc"})
    run.log_metrics({"loss": 2.0}, step=1)
    run.log_image(Image.new("RGB", (3, 2)), "samples/000001.png")
    run.log_input("image_set", "/lake/image_set/1.json", "f" * 64, "training")
    version = tracker.register("served-clip", "/lake/models/clip/aa", run=run, tags={}, parents=[])
    tracker.set_alias(version, "champion")
    tracker.finish(run)
    assert tracker.by_alias("served-clip", "champion") == ModelVersion("served-clip", "1", "/lake/models/clip/aa")
    told = client_of(road).get_run(run.run_id)
    assert (told.info.status, told.data.metrics, told.data.params) == (
        "FINISHED",
        {"loss": 2.0},
        {"training.steps": "3"},
    )
    assert run.url == f"{road.proxy.endpoint}/#/experiments/{told.info.experiment_id}/runs/{run.run_id}"
    names = {path.rpartition("/")[2] for path in s3fs.S3FileSystem().find(artifacts)}
    assert {"000001.png", "MLmodel", "model.json"} <= names


# ---------------------------------------------------------------------------------------------------------------- away
def test_a_training_goes_on_while_the_server_is_away_and_loses_no_figure(ws: Workspace, road: Road) -> None:
    road.close_after(3, seconds=4)
    outcome = train_model(ws, "vae")
    assert road.num_turned_back
    assert logged_steps(road, outcome.record.metadata["mlflow_run"]) == list(range(1, NUM_STEPS + 1))
    assert ws.tracker.by_alias(ws.registry_name("vae"), "champion").uri == ws.lake.uri(outcome.record.path)


def test_a_model_that_could_not_be_registered_is_not_trained_again(
    ws: Workspace, road: Road, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ATELIER_TRACKING_PATIENCE", "2")
    ws = replace(ws, tracker=open_tracker(road.proxy.endpoint))
    road.close_after(3, seconds=3600)
    with pytest.raises(TrackerAway, match=rf"{road.proxy.endpoint} does not answer .*2 s were waited.*only registered"):
        train_model(ws, "vae")
    assert ws.lake.record("vae", "model") is None
    (version,) = ws.lake.folders("models/vae")
    road.open()
    caplog.set_level("INFO")
    monkeypatch.setattr("components.execution.local_executor.LocalExecutor.fit", never_called)
    outcome = train_model(ws, "vae")
    assert "vae is trained already and is registered now" in caplog.text
    assert outcome.record.data_version == version
    assert ws.tracker.by_alias(ws.registry_name("vae"), "champion").uri == ws.lake.uri(outcome.record.path)
    run_id = outcome.record.metadata["mlflow_run"]
    assert logged_steps(road, run_id) == list(range(1, NUM_STEPS + 1))
    assert client_of(road).get_run(run_id).info.status == "FINISHED"
    assert list(ws.lake.files("checkpoints")) == []


def test_a_training_whose_caller_was_stopped_is_neither_repeated_nor_registered_again(ws, monkeypatch) -> None:
    inputs = {"image_set": ws.parent("image_set").data_version}
    first = fit_stage(ws, "vae", "0" * 16, inputs)
    monkeypatch.setattr("components.execution.local_executor.LocalExecutor.fit", never_called)
    again = fit_stage(ws, "vae", "0" * 16, inputs)
    assert (again.made.registry, again.made.metadata) == (first.made.registry, first.made.metadata)
    again.checkpoints.clear()
    assert list(ws.lake.files("checkpoints")) == []


def never_called(*arguments: object, **options: object) -> None:
    raise AssertionError("the training ran again")


def test_an_address_that_nobody_answers_is_named_at_once_and_without_its_password(monkeypatch) -> None:
    monkeypatch.setattr("components.tracking.mlflow_tracker._SECONDS_TO_FIND", 1.0)
    tracker = open_tracker("http://someone:secret@127.0.0.1:9")
    with pytest.raises(TrackerAway, match=r"http://127\.0\.0\.1:9 does not answer .*MLFLOW_TRACKING_URI") as failure:
        tracker.prepare()
    assert "secret" not in str(failure.value)
