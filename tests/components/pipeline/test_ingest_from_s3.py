"""A source and a lake on S3: one shard that cannot be read fails alone, by name, and is read by the next run."""

import dataclasses
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from components.data.catalog import load_dataset
from components.data.lake import Lake
from components.data.scene_graph import scene_for
from components.data.scene_rendering import encode_png, render
from components.data.storage import Storage
from components.pipeline.ingest import build_image_set, ingest, shard_names
from components.pipeline.lineage import Ledger
from components.pipeline.workspace import Workspace
from tests.s3 import Fault, FaultyProxy
from tests.workspaces import scenes_workspace


@pytest.fixture
def ws(bucket: str, s3: FaultyProxy, tmp_path: Path, monkeypatch) -> Workspace:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("PETS", bucket)
    for number in range(3):
        pictures = [encode_png(p) for p in render([scene_for(10 * number + i, seed=1) for i in range(5)], 32)]
        keys = [f"{number}-{i}" for i in range(5)]
        table, file = pa.table({"key": keys, "png": pictures, "caption": keys}), io.BytesIO()
        pq.write_table(table, file)
        Storage(bucket).write_bytes(f"source/{number}.parquet", file.getvalue())
    card = {"name": "pets", "description": "pets", "license": "CC0-1.0", "splits": {"evaluation": 0.2}}
    card |= {"source": {"format": "parquet", "uri": "${PETS}/source/*.parquet"}, "opt_out": "opt_outs.jsonl"}
    folder = tmp_path / "datasets" / "pets"
    folder.mkdir(parents=True)
    (folder / "dataset.yaml").write_text(yaml.safe_dump(card))
    (folder / "opt_outs.jsonl").write_text('{"key": "0-3"}\n')
    scenes = scenes_workspace(tmp_path, {"data.max_shards": "3"})
    dataset = load_dataset("pets", tmp_path / "datasets")
    return dataclasses.replace(scenes, dataset=dataset, lake=Lake(f"{bucket}/lake"))


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_shard_that_s3_does_not_give_fails_alone(method: str, ws: Workspace, s3: FaultyProxy, bucket: str) -> None:
    s3.faults = [Fault("busy", method, "source/1.parquet", times=1000)]
    ended = {result.shard: result.failure for result in ingest(ws, shard_names(ws))}
    assert (ended["00000"], ended["00002"]) == (None, None)
    assert f"raw_pairs[00001] from {bucket}/source/1.parquet" in str(ended["00001"])
    assert "cannot be read" in str(ended["00001"])
    assert list(ws.lake.records("raw_pairs")) == ["00000", "00002"]
    s3.faults = []
    again = {result.shard: result.outcome.is_reused for result in ingest(ws, shard_names(ws)) if result.outcome}
    assert again == {"00000": True, "00001": False, "00002": True}
    images = build_image_set(ws).record
    assert (images.num_rows, images.metadata["opted_out"]) == (15, 1)
    lineage = Ledger(ws).source(f"{bucket}/source/1.parquet")
    assert [part.shard for part in lineage.parts] == ["00001"]
    assert [one.key for one in Ledger(ws).opted_out()] == ["0-3"]
