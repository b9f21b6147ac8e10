from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.contracts import ModelVersion
from components.tracking import open_tracker, outage
from components.tracking.local_tracker import MAX_VALUE_LENGTH, LocalTracker, flatten
from components.tracking.mlflow_tracker import MlflowTracker
from tests.processes import PATIENCE

Either = LocalTracker | MlflowTracker


@pytest.fixture(params=["local", "mlflow"])
def tracker(request: pytest.FixtureRequest, tmp_path: Path) -> Either:
    if request.param == "local":
        return open_tracker(f"local:{tmp_path}/tracker")
    return open_tracker(f"sqlite:///{request.getfixturevalue('database')}")


def test_figures_of_a_run_that_has_ended_wait_for_a_server_that_is_away(database: Path, monkeypatch) -> None:
    from mlflow import MlflowClient
    from requests.exceptions import ConnectionError as Away

    tracker = open_tracker(f"sqlite:///{database}")
    assert isinstance(tracker, MlflowTracker)
    run = tracker.start("vae", {}, {})
    tracker.finish(run)
    log_batch, refused = MlflowClient.log_batch, []

    def away(client: MlflowClient, *arguments: Any, **options: Any) -> None:
        if len(refused) < 2:
            refused.append(1)
            raise Away("no route")
        log_batch(client, *arguments, **options)

    monkeypatch.setattr(outage, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(MlflowClient, "log_batch", away)
    tracker.log_metrics(run.run_id, {"cost/cost": 1.5})
    assert len(refused) == 2
    assert kept(tracker, run.run_id).figures == {"cost/cost": [(0, 1.5)]}


@dataclass
class Kept:
    """What a tracker kept of a run."""

    name: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    figures: dict[str, list[tuple[int, float]]]
    inputs: list[tuple[str, str, str, str]]
    artifact: Callable[[str], Path]


def kept(tracker: Either, run_id: str) -> Kept:
    if isinstance(tracker, LocalTracker):
        folder = tracker.folder / "runs" / run_id
        state = json.loads((folder / "run.json").read_text())
        figures: dict[str, list[tuple[int, float]]] = {}
        for line in (folder / "metrics.jsonl").read_text().splitlines() if (folder / "metrics.jsonl").exists() else ():
            entry = json.loads(line)
            for name, value in entry["metrics"].items():
                figures.setdefault(name, []).append((entry["step"], value))
        lines = (folder / "inputs.jsonl").read_text().splitlines() if (folder / "inputs.jsonl").exists() else []
        inputs = [(one["name"], one["uri"], one["digest"], one["context"]) for one in map(json.loads, lines)]
        params = json.loads((folder / "params.json").read_text())
        state_tags = state["tags"]
        return Kept(
            state["name"], state["status"], params, state_tags, figures, inputs, (folder / "artifacts").joinpath
        )
    from mlflow import MlflowClient

    client = MlflowClient(tracker.uri)
    run = client.get_run(run_id)
    inputs = []
    for one in run.inputs.dataset_inputs:
        tags = {tag.key: tag.value for tag in one.tags}
        uri = json.loads(one.dataset.source)["uri"]
        assert tags["digest"].startswith(one.dataset.digest)
        inputs.append((one.dataset.name, uri, tags["digest"], tags["mlflow.data.context"]))
    return Kept(
        run.info.run_name,
        run.info.status,
        run.data.params,
        run.data.tags,
        {name: [(m.step, m.value) for m in client.get_metric_history(run_id, name)] for name in run.data.metrics},
        inputs,
        lambda name: Path(client.download_artifacts(run_id, name)),
    )


# ---------------------------------------------------------------------------------------------------------------- runs
def test_a_run_keeps_what_it_is_told(tracker: Either) -> None:
    run = tracker.start("clip", {"training": {"steps": 3}, "family": "clip"}, {"dagster.run_id": "abc"})
    run.log_metrics({"loss": 2.0, "held_out/retrieval": 0.25}, step=10)
    run.log_metrics({"loss": 1.5}, step=20)
    run.log_metrics({"images_per_second": 40.0})
    run.log_image(Image.new("RGB", (3, 2), (255, 0, 0)), "samples/000010.png")
    run.log_text("ä red circle", "captions.txt")
    run.log_input("image_set", "/lake/image_set/1.json", "f" * 64, "training")
    tracker.finish(run)

    told = kept(tracker, run.run_id)
    assert (told.name, told.status) == ("clip", "FINISHED")
    assert told.params == {"training.steps": "3", "family": "clip"}
    assert told.tags["dagster.run_id"] == "abc"
    assert told.figures == {
        "loss": [(10, 2.0), (20, 1.5)],
        "held_out/retrieval": [(10, 0.25)],
        "images_per_second": [(0, 40.0)],
    }
    assert told.inputs == [("image_set", "/lake/image_set/1.json", "f" * 64, "training")]
    with Image.open(told.artifact("samples/000010.png")) as image:
        assert (image.size, image.getpixel((0, 0))) == ((3, 2), (255, 0, 0))
    assert told.artifact("captions.txt").read_text() == "ä red circle"
    assert run.url is None


def test_a_run_goes_on_in_another_process(tracker: Either) -> None:
    run = tracker.start("vae", {}, {})
    tracker.finish(run, failed=True)
    assert kept(tracker, run.run_id).status == "FAILED"
    again = pickle.loads(pickle.dumps(tracker))
    resumed = again.resume(run.run_id)
    resumed.log_metrics({"loss": 1.0}, step=1)
    assert kept(tracker, run.run_id).status == "RUNNING"
    assert kept(tracker, run.run_id).figures == {"loss": [(1, 1.0)]}


def test_a_run_of_another_tracker_is_unknown(tracker: Either) -> None:
    with pytest.raises(LookupError, match="has no run '0123'"):
        tracker.resume("0123")


def test_an_artifact_stays_below_its_run(tmp_path: Path) -> None:
    run = LocalTracker(tmp_path).start("clip", {}, {})
    with pytest.raises(ValueError, match="leaves the run's folder"):
        run.log_text("x", "../../../escaped.txt")


def test_many_params_and_long_values_fit(tracker: Either) -> None:
    params = {f"field{number}": number for number in range(150)} | {"caption": "x" * 9000}
    run = tracker.start("base_captioner", params, {"note": "y" * 20_000})
    told = kept(tracker, run.run_id)
    assert len(told.params) == 151
    assert told.params["caption"] == "x" * (MAX_VALUE_LENGTH - 3) + "..."
    assert told.tags["note"].startswith("yyy")


def test_params_become_dotted_names_with_text_values() -> None:
    nested = {"a": {"b": {"c": 1}, "rates": [0.9, 0.99], "empty": {}}, "on": True, "none": None, "text": "95 % dsc"}
    assert flatten(nested) == {
        "a.b.c": "1",
        "a.rates": "[0.9, 0.99]",
        "a.empty": "{}",
        "on": "true",
        "none": "null",
        "text": "95 % dsc",
    }


def test_a_run_has_a_path_in_the_ui_where_there_is_one(tracker: Either) -> None:
    run = tracker.start("clip", {}, {})
    path = tracker.run_path(run)
    if isinstance(tracker, MlflowTracker):
        assert path is not None
        assert path.startswith("#/experiments/")
        assert path.endswith(f"/runs/{run.run_id}")
    else:
        assert path is None


# ------------------------------------------------------------------------------------------------------------ registry
def test_versions_count_up_and_aliases_move(tracker: Either) -> None:
    assert tracker.by_alias("world-tiny-vae", "champion") is None
    first = tracker.register("world-tiny-vae", "/lake/models/vae/aa", run=None, tags={"data_version": "aa"}, parents=[])
    second = tracker.register("world-tiny-vae", "/lake/models/vae/bb", run=None, tags={}, parents=[])
    assert (str(first), str(second)) == ("world-tiny-vae/1", "world-tiny-vae/2")
    assert tracker.versions("world-tiny-vae") == [first, second]
    assert tracker.versions("world-tiny-clip") == []
    assert tracker.by_alias("world-tiny-vae", "champion") is None
    tracker.set_alias(first, "champion")
    tracker.set_alias(second, "candidate")
    assert tracker.by_alias("world-tiny-vae", "champion") == ModelVersion("world-tiny-vae", "1", "/lake/models/vae/aa")
    assert tracker.by_alias("world-tiny-vae", "candidate") == second
    tracker.set_alias(second, "champion")
    assert tracker.by_alias("world-tiny-vae", "champion") == second


def test_a_version_knows_its_run_data_and_parents(tracker: Either) -> None:
    parent = tracker.register("lineage-clip", "/lake/models/clip/aa", run=None, tags={}, parents=[])
    run = tracker.start("captioner", {}, {})
    run.log_input("image_set", "s3://bucket/image_set.json", "d1", "training")
    version = tracker.register(
        "lineage-captioner", "/lake/models/c/bb", run=run, tags={"dagster.url": "http://d/1"}, parents=[str(parent)]
    )
    tracker.set_tags(version, {"withdrawn": "by Ada", "reinstated": "no"})
    tracker.set_tags(version, {"reinstated": "yes"})
    if isinstance(tracker, LocalTracker):
        entry = json.loads((tracker.folder / "models" / version.name / f"{version.version}.json").read_text())
        parents, inputs, tags, run_id = entry["parents"], entry["inputs"], entry["tags"], entry["run_id"]
    else:
        from mlflow import MlflowClient

        client = MlflowClient(tracker.uri)
        mlflow_version = client.get_model_version(version.name, version.version)
        tags, run_id = mlflow_version.tags, mlflow_version.run_id
        parents, inputs = json.loads(tags["parents"]), json.loads(tags["inputs"])
        seen = client.get_run(run.run_id)
        parent_model = client.get_model_version(parent.name, parent.version).tags["model_id"]
        assert [one.model_id for one in seen.inputs.model_inputs] == [parent_model]
        assert [one.model_id for one in seen.outputs.model_outputs] == [tags["model_id"]]
    assert (parents, inputs, run_id) == (["lineage-clip/1"], {"image_set": "d1"}, run.run_id)
    assert (tags["dagster.url"], tags["withdrawn"], tags["reinstated"]) == ("http://d/1", "by Ada", "yes")
    assert tracker.versions("lineage-captioner") == [version]


def test_a_parent_from_elsewhere_does_not_stop_a_registration(tracker: Either) -> None:
    run = tracker.start("captioner", {}, {})
    version = tracker.register("foreign", "/lake/models/c/cc", run=run, tags={}, parents=["openai/clip-vit"])
    assert version.version == "1"


WRITER = """
import sys
from components.tracking import open_tracker, outage
tracker = open_tracker(sys.argv[1])
tracker.prepare()
run = tracker.start("clip", {"process": sys.argv[2]}, {})
for step in range(40):
    run.log_metrics({"loss": 1.0 / (step + 1)}, step=step)
run.log_text("x", "note.txt")
version = tracker.register("shared", f"/lake/{sys.argv[2]}", run=run, tags={}, parents=[])
tracker.set_alias(version, "candidate")
tracker.finish(run)
print(run.run_id, version.version)
"""


@pytest.mark.parametrize("kind", ["local", "mlflow"])
def test_two_processes_share_a_new_tracker(kind: str, tmp_path: Path) -> None:
    uri = f"local:{tmp_path}/shared" if kind == "local" else f"sqlite:///{tmp_path}/shared/mlflow.db"
    command = [sys.executable, "-c", WRITER, uri]
    writers = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for name in "ab"
    ]
    said = [writer.communicate(timeout=PATIENCE) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], said
    runs, versions = zip(*(out.split() for out, _ in said), strict=True)
    assert sorted(versions) == ["1", "2"]
    tracker = open_tracker(uri)
    for run_id in runs:
        told = kept(tracker, run_id)
        assert told.status == "FINISHED"
        assert [step for step, _ in told.figures["loss"]] == list(range(40))


# ------------------------------------------------------------------------------------------------------------- opening
def test_the_uri_says_which_tracker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert isinstance(open_tracker(f"local:{tmp_path}"), LocalTracker)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    named = open_tracker(None)
    assert isinstance(named, MlflowTracker)
    assert named.uri == "http://127.0.0.1:1"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI"):
        open_tracker(None)


def test_artifacts_lie_beside_the_database_or_where_they_are_told(database: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{database}"
    beside = open_tracker(uri).start("clip", {}, {})
    beside.log_text("x", "note.txt")
    assert (database.parent / "artifacts" / beside.run_id / "artifacts" / "note.txt").read_text() == "x"
    told = open_tracker(uri, str(tmp_path / "far"), experiment="elsewhere").start("clip", {}, {})
    told.log_text("y", "note.txt")
    assert (tmp_path / "far" / told.run_id / "artifacts" / "note.txt").read_text() == "y"


def test_opening_a_tracker_does_not_import_mlflow() -> None:
    code = (
        "import sys; from components.tracking import open_tracker; open_tracker('sqlite:///x.db'); print('mlflow' in "
    )
    code += "sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "mlflow" not in said.stdout.split()


def test_mlflow_keeps_no_active_run(database: Path) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    tracker: Any = open_tracker(f"sqlite:///{database}")
    tracker.start("clip", {}, {})
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == before
