"""What is due is what a run would make, and the reason is the right one."""

import shutil
from pathlib import Path

import pytest

from components.data.catalog import load_dataset
from components.pipeline.due import due_captions, due_pairs
from components.pipeline.ingest import Intake, ingest, shard_names
from components.pipeline.workspace import Workspace
from tests.captioned_lake import OVERRIDES, captioned_lake, read_shards
from tests.finished_lake import keep_model
from tests.own_data import own_data, write_shard
from tests.workspaces import scenes_workspace


@pytest.fixture
def mine(tmp_path: Path) -> Workspace:
    """A data set of three files, and no shard of it read."""
    data = own_data(tmp_path / "datasets")
    for shard in range(3):
        write_shard(data, shard)
    dataset = load_dataset("mine", tmp_path / "datasets")
    return scenes_workspace(tmp_path, {"data.max_shards": "9"}, dataset=dataset)


def reasons(ws: Workspace) -> dict[str, str]:
    return {one.shard: one.reason for one in due_pairs(ws, Intake.of(ws))[0]}


def test_a_source_that_changes_makes_its_shard_due_until_it_is_read(mine: Workspace) -> None:
    ws, data = mine, mine.dataset.folder / "data"
    assert reasons(ws) == dict.fromkeys(shard_names(ws), "never made")
    read_shards(ws)
    assert due_pairs(ws, Intake.of(ws)) == ([], {})
    write_shard(data, 1, seed=6)
    (due,) = due_pairs(ws, Intake.of(ws))[0]
    assert (due.shard, due.reason) == ("00001", "its source has changed")
    (result,) = ingest(ws, ["00001"])
    assert result.outcome is not None
    assert result.outcome.record.fingerprint == due.fingerprint
    assert due_pairs(ws, Intake.of(ws)) == ([], {})
    write_shard(data, 3)
    assert reasons(ws) == {"00003": "never made"}


def test_other_settings_make_every_shard_due(mine: Workspace, tmp_path: Path) -> None:
    read_shards(mine)
    other = {"data.max_shards": "9", "data.ingest.min_side": "8"}
    changed = scenes_workspace(tmp_path, other, dataset=mine.dataset)
    assert reasons(changed) == dict.fromkeys(shard_names(mine), "other settings or code")


def test_a_source_that_does_not_answer_is_told_apart(mine: Workspace, monkeypatch) -> None:
    read_shards(mine)

    def state(reader: object, shard: int) -> str:
        raise FileNotFoundError(f"shard {shard} is gone")

    monkeypatch.setattr("components.data.parquet_reader.ParquetReader.state", state)
    gone = {shard: f"shard {int(shard)} is gone" for shard in shard_names(mine)}
    assert due_pairs(mine, Intake.of(mine)) == ([], gone)


def test_settings_that_come_back_are_due_as_something_new(mine: Workspace, tmp_path: Path) -> None:
    other = scenes_workspace(tmp_path, {"data.max_shards": "9", "data.ingest.min_side": "8"}, dataset=mine.dataset)
    asked = set()
    for ws in (mine, other, mine, other):
        asked |= {(one.shard, one.fingerprint, one.replaces) for one in due_pairs(ws, Intake.of(ws))[0]}
        again = {(one.shard, one.fingerprint, one.replaces) for one in due_pairs(ws, Intake.of(ws))[0]}
        assert again <= asked  # until they are made
        read_shards(ws)
    assert len(asked) == 4 * 3


def test_captions_are_due_where_rows_scores_or_settings_have_changed(tmp_path: Path) -> None:
    ws = captioned_lake(tmp_path)
    assert due_captions(ws) == []
    shutil.rmtree(Path(ws.lake.root) / "recaptioned" / "00001")
    assert [(one.shard, one.reason) for one in due_captions(ws)] == [("00001", "never made")]
    grown = scenes_workspace(tmp_path, OVERRIDES | {"data.max_rows_per_shard": "9"})
    read_shards(grown, "00002")
    assert {one.shard: one.reason for one in due_captions(ws)}["00002"] == "its rows have changed"
    strict = scenes_workspace(tmp_path, OVERRIDES | {"recaption.quality.max_words": "4"})
    assert {one.shard: one.reason for one in due_captions(strict)}["00000"] == "other settings or code"
    keep_model(ws, "clip", {}, "another")
    assert {one.shard: one.reason for one in due_captions(ws)}["00000"] == "another clip"
    shutil.rmtree(Path(ws.lake.root) / "raw_pairs" / "00000")
    assert "00000" not in {one.shard for one in due_captions(ws)}
