"""What a run or a command is given is what its work sees: recipe, overrides, force."""

from pathlib import Path

import pytest

from components.data.lake import Lake
from components.tracking import open_tracker
from orchestration.launch import Target, run_job
from orchestration.resources import overrides_of
from tests.command_line import run

SMALL = {"data.max_shards": "1", "data.max_rows_per_shard": "40"}


@pytest.fixture
def home(tmp_path, monkeypatch, ray_executor):
    """A deployment's home whose environment names another recipe than the runs do."""
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    monkeypatch.setenv("ATELIER_RECIPE", "tiny")
    ray_executor._connect()  # the runs below find this cluster and use it
    target = Target("scenes", "smoke")
    target.home.prepare()
    monkeypatch.setenv("DAGSTER_HOME", str(target.home.dagster_home))
    open_tracker(target.home.tracking_uri, target.home.artifacts).prepare()
    return target.home


def test_overrides_and_force_reach_the_assets(home):
    assert run_job(Target("scenes", "smoke", SMALL), "ingest")
    lake = Lake(home.lake)
    (record,) = lake.records("raw_pairs").values()
    assert (record.recipe, record.num_rows) == ("smoke", 40)
    pointer = Path(lake.root) / "raw_pairs" / "00000" / "current.json"
    made_at = pointer.stat().st_mtime_ns
    assert run_job(Target("scenes", "smoke", SMALL), "ingest")
    assert pointer.stat().st_mtime_ns == made_at
    assert run_job(Target("scenes", "smoke", SMALL, is_forced=True), "ingest")
    assert pointer.stat().st_mtime_ns > made_at


def test_commands_take_overrides_from_the_environment_and_set_counts_first(tmp_path):
    given = {"ATELIER_OVERRIDES": '{"data.max_shards": 3, "data.max_rows_per_shard": "4"}'}
    done = run(["check-dataset", "scenes", "--set", "data.max_shards=2"], tmp_path, given)
    assert "scenes: 8 rows of 2 of 2 shards" in done.stdout, done.stderr


def test_overrides_are_json_objects_of_fields():
    assert overrides_of({}) == overrides_of({"ATELIER_OVERRIDES": ""}) == {}
    said = '{"data.max_shards": 3, "data.fit": "crop", "data.near_duplicates": {"max_distance": 4}}'
    expected = {"data.max_shards": "3", "data.fit": "crop", "data.near_duplicates": '{"max_distance": 4}'}
    assert overrides_of({"ATELIER_OVERRIDES": said}) == expected
    for wrong in ("data.max_shards=3", '["data.max_shards"]'):
        with pytest.raises(ValueError, match="write a JSON object such as"):
            overrides_of({"ATELIER_OVERRIDES": wrong})
