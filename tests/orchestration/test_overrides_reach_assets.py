"""What a run is given for a resource is what its assets see: recipe, overrides, force."""

from pathlib import Path

import pytest

from components.data.lake import Lake
from components.tracking import open_tracker
from orchestration.launch import Target, run_job

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
