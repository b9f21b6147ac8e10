"""When an asset is made, reused or refused; what one lost shard does to the others."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.catalog import load_dataset
from components.pipeline.captions import build_training_set
from components.pipeline.ingest import build_image_set, ingest, shard_names
from components.pipeline.progress import Progress, tracked
from components.pipeline.rows import load_rows
from components.pipeline.train import train_model
from components.pipeline.workspace import Made, UnfitParent, Workspace
from components.recipes import load_recipe
from components.schemas import RECAPTIONED
from tests.own_data import own_data, pictures, write_rows
from tests.workspaces import scenes_workspace

CARD = """\
homepage: none
examples:
  ssc: {columns: [caption], template: "{caption}", rows: 10}
splits: {evaluation: 0.2}
"""


def write_shard(data: Path, number: int, num_rows: int = 12) -> None:
    """Pictures with captions of their own."""
    keys = [f"{number}-{row:03d}" for row in range(num_rows)]
    rows = dict(zip(keys, pictures(range(100 * number, 100 * number + num_rows)), strict=True))
    write_rows(data / f"{number:05d}.parquet", rows, (f"picture {row} of shard {number}" for row in range(num_rows)))


@pytest.fixture
def ws(tmp_path) -> Workspace:
    data = own_data(tmp_path / "datasets", CARD)
    for number in range(3):
        write_shard(data, number)
    return scenes_workspace(tmp_path, {"data.max_shards": "3"}, dataset=load_dataset("mine", tmp_path / "datasets"))


def shard_file(ws: Workspace, number: int) -> Path:
    return ws.dataset.folder / "data" / f"{number:05d}.parquet"


def ingested(ws: Workspace) -> dict[str, str]:
    """How each shard ended: made, reused or the reason of its failure."""
    results = ingest(ws, shard_names(ws))
    return {r.shard: r.failure or ("reused" if r.outcome.is_reused else "made") for r in results}


def test_nothing_is_made_twice(ws):
    assert set(ingested(ws).values()) == {"made"}
    assert set(ingested(ws).values()) == {"reused"}
    assert set(ingested(ws.forced()).values()) == {"made"}


def test_a_changed_shard_is_read_again_and_no_other(ws):
    ingested(ws)
    write_shard(shard_file(ws, 1).parent, 1, num_rows=9)
    assert ingested(ws) == {"00000": "reused", "00001": "made", "00002": "reused"}
    assert ws.parent("raw_pairs", "00001").num_rows == 9


def test_a_rerun_gives_the_same_bytes(ws):
    ingested(ws)
    before = {shard: record.data_version for shard, record in ws.lake.records("raw_pairs").items()}
    ingested(ws.forced())
    assert before == {shard: record.data_version for shard, record in ws.lake.records("raw_pairs").items()}


def test_an_unreadable_shard_fails_alone_with_its_name_and_can_be_retried(ws):
    whole = shard_file(ws, 1).read_bytes()
    shard_file(ws, 1).write_bytes(whole[: len(whole) // 2])
    ended = ingested(ws)
    assert (ended["00000"], ended["00002"]) == ("made", "made")
    assert "00001.parquet" in ended["00001"]
    with pytest.raises(UnfitParent, match="raw_pairs lacks shards 00001 of 3"):
        build_image_set(ws)
    shard_file(ws, 1).write_bytes(whole)
    assert ingested(ws) == {"00000": "reused", "00001": "made", "00002": "reused"}
    assert build_image_set(ws).record.num_rows == 36


def test_a_bad_row_is_set_aside_and_counted(ws):
    table = pq.read_table(shard_file(ws, 0))
    pictures = table["png"].to_pylist()
    pictures[3] = pictures[3][:60]
    pq.write_table(table.set_column(1, "png", pa.array(pictures)), shard_file(ws, 0))
    ingested(ws)
    record = ws.parent("raw_pairs", "00000")
    assert (record.metadata["read"], record.metadata["kept"], record.metadata["rejected"]) == (12, 11, 1)
    rejected = ws.lake.read_table(record.metadata["rejected_path"]).to_pylist()
    assert [row["key"] for row in rejected] == ["0-003"]
    assert sum(record.metadata["rejected_by_reason"].values()) == 1


def test_evaluation_rows_are_never_trained_on(ws):
    ingested(ws)
    manifest = build_image_set(ws).record
    rows = load_rows(ws)
    assert not set(rows.train.keys) & set(rows.evaluation.keys)
    assert len(rows.train) + len(rows.evaluation) == manifest.num_rows
    assert 0 < len(rows.evaluation) < len(rows.train)
    assert rows.train.pixels.shape == (len(rows.train), 32, 32, 3)
    assert rows.train.scenes is None
    examples = [key for key, text in zip(rows.train.keys, rows.train.texts["ssc_example"], strict=True) if text]
    assert len(examples) == 10


def test_a_missing_parent_is_named_with_its_remedy(ws):
    with pytest.raises(
        UnfitParent, match=r"image_set has not been materialized for dataset 'mine'.*materialize it first"
    ):
        train_model(ws, "clip")


def test_a_lake_of_another_recipe_is_refused_naming_both(ws):
    ingested(ws)
    other = ws.with_recipe(load_recipe("tiny"))
    with pytest.raises(UnfitParent, match=r"recipe 'smoke', this run is for 'mine' with 'tiny'"):
        list(ingest(other, shard_names(other)))


def test_a_data_set_without_examples_of_a_kind_says_what_to_do(ws):
    ingested(ws)
    build_image_set(ws)
    ws.materialize("base_captioner", {}, None, lambda _: Made("v", ""))
    with pytest.raises(UnfitParent, match=r"dsc_captioner has no rows with text 'dsc_example': give the data set"):
        train_model(ws, "dsc_captioner")


def caption_all(ws: Workspace, verdict: str | None = None) -> None:
    """Stand in for the captioners: captions that say the key."""
    for shard in shard_names(ws):
        raw = ws.parent("raw_pairs", shard)
        rows = ws.lake.read_table(raw.path, ["key", "sha256", "caption"]).to_pylist()
        written = [
            {**row, "ssc": row["key"], "dsc": row["key"], "ssc_captioner": "s/1", "dsc_captioner": "d/1"}
            | dict.fromkeys(("ssc_score", "dsc_score", "ssc_shuffled", "dsc_shuffled"), 1.0)
            | {"rejected": "dsc empty" if i == 0 else None}
            for i, row in enumerate(rows)
        ]
        path, digest = ws.lake.write_table(f"recaptioned/{shard}", pa.Table.from_pylist(written), RECAPTIONED)
        made = Made(digest, path, num_rows=len(rows), metadata={"rejected": 1})
        if shard == "00001":
            made = dataclasses.replace(made, verdict=verdict)
        ws.keep("recaptioned", "f", {"raw_pairs": raw.data_version}, made, seconds=0.0, shard=shard)


def test_rejected_captions_are_left_out_of_training(ws):
    ingested(ws)
    build_image_set(ws)
    caption_all(ws)
    record = build_training_set(ws).record
    expected = {"rows": 36, "raw_rows": 36, "rejected_captions": 3, "repeated_keys": 0, "pictures_in_both_splits": 0}
    assert record.metadata == expected
    rows = load_rows(ws, with_recaptions=True)
    assert not {"0-000", "1-000", "2-000"} & set(rows.train.keys)
    assert list(rows.train.texts["dsc"]) == list(rows.train.keys)


def test_a_shard_with_a_bad_verdict_blocks_training_and_says_why(ws):
    ingested(ws)
    build_image_set(ws)
    caption_all(ws, verdict="dsc: only 1 distinct captions for 12 pictures")
    with pytest.raises(UnfitParent, match=r"recaptioned\[00001\] must not be trained on: dsc: only 1 distinct"):
        build_training_set(ws)


def test_captions_of_older_pictures_are_refused(ws):
    ingested(ws)
    build_image_set(ws)
    caption_all(ws)
    write_shard(shard_file(ws, 2).parent, 2, num_rows=7)
    ingested(ws)
    build_image_set(ws)
    with pytest.raises(UnfitParent, match=r"recaptioned\[00002\] was written for an older raw_pairs"):
        build_training_set(ws)


def test_progress_says_rate_and_time_left(caplog):
    import logging

    log = logging.getLogger("components.test")
    with caplog.at_level(logging.INFO, log.name):
        assert list(tracked(range(4), log, "stage", 4, "rows")) == [0, 1, 2, 3]
        Progress(log, "other", 10, "steps").update(10, "loss 0.5")
    assert "stage: 4/4 rows" in caplog.text
    assert "0s left" in caplog.text
    assert "loss 0.5" in caplog.text
