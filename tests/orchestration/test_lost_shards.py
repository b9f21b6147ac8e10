"""A shard that cannot be read fails its partition alone in a Dagster run, says why, and is made by the next run."""

from pathlib import Path

import dagster as dg
import pytest

from components.data.lake import Lake
from components.tracking import open_tracker
from orchestration.launch import Target, run_job
from tests.own_data import own_data, write_shard


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a data set of three shards, found by the catalogue of this process."""
    folder = own_data(tmp_path / "datasets")
    for shard in range(3):
        write_shard(folder, shard)
    monkeypatch.setattr("components.data.catalog.load_dataset.__defaults__", (tmp_path / "datasets",))
    return folder


def materialized(instance: dg.DagsterInstance) -> set[str]:
    return instance.get_materialized_partitions(dg.AssetKey("raw_pairs"))


def test_a_lost_shard_costs_its_partition_alone(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, ray_executor
) -> None:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    ray_executor._connect()  # the runs below find this cluster and use it
    target = Target("mine", "smoke", {"data.max_shards": "3"})
    target.home.prepare()
    monkeypatch.setenv("DAGSTER_HOME", str(target.home.dagster_home))
    open_tracker(target.home.tracking_uri, target.home.artifacts).prepare()
    whole = (data / "1.parquet").read_bytes()
    (data / "1.parquet").write_bytes(whole[: len(whole) // 2])

    assert not run_job(target, "ingest")
    with dg.DagsterInstance.get() as instance:
        assert materialized(instance) == {"00000", "00002"}
        (run,) = instance.get_runs(limit=1)
        told = [event.message for event in instance.all_logs(run.run_id)]
        assert any("1.parquet cannot be read" in message for message in told)
    lake = Lake(target.home.lake)
    before = {shard: record.data_version for shard, record in lake.records("raw_pairs").items()}
    assert set(before) == {"00000", "00002"}

    (data / "1.parquet").write_bytes(whole)
    assert run_job(target, "ingest")
    with dg.DagsterInstance.get() as instance:
        assert materialized(instance) == {"00000", "00001", "00002"}
    after = {shard: record.data_version for shard, record in lake.records("raw_pairs").items()}
    assert {shard: after[shard] for shard in before} == before
    assert len(after) == 3
