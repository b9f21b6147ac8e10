"""Eight shards, captioners that count what they are asked for: only what no earlier version holds is written."""

import shutil
from pathlib import Path

import pytest

from components.data import scenes as world
from components.pipeline.captions import recaption
from components.pipeline.champions import choose_champions
from components.pipeline.graph import make
from components.pipeline.ingest import shard_names
from components.pipeline.verify import verify
from components.pipeline.workspace import Workspace
from tests.planted import WRITTEN, allow_planted, plant, promote_untested
from tests.workspaces import scenes_workspace

NUM_SHARDS, NUM_ROWS = 8, 40
SMALL = {"data.max_shards": str(NUM_SHARDS), "clip.training.num_steps": "1", "recaption.num_gate_pictures": "8"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Rows, manifest and CLIP, made once."""
    folder = tmp_path_factory.mktemp("incremental")
    for asset in ("raw_pairs", "image_set", "clip"):
        make(opened(folder), asset)
    return folder


def opened(folder: Path, num_rows: int = NUM_ROWS, **more: str) -> Workspace:
    return scenes_workspace(folder, {**SMALL, "data.max_rows_per_shard": str(num_rows), **more})


@pytest.fixture
def ws(base, tmp_path, monkeypatch) -> Workspace:
    """A copy of the base with two planted champions and every shard captioned."""
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    allow_planted(monkeypatch)
    workspace = opened(tmp_path)
    for kind in ("ssc", "dsc"):
        plant(workspace, kind, f"{kind}-1")
    choose_champions(workspace)
    counts(workspace)
    return workspace


def counts(ws: Workspace) -> dict[str, int]:
    """Pictures captioned while all shards are made, by captioner."""
    WRITTEN.clear()
    results = list(recaption(ws, shard_names(ws)))
    assert not [result.failure for result in results if result.failure]
    return {name: count for name, count in WRITTEN.items() if count}


def bytes_of(ws: Workspace) -> list[bytes]:
    return [ws.lake.read_bytes(record.path) for record in ws.lake.records("recaptioned").values()]


def written(ws: Workspace, name: str) -> int:
    return sum(record.metadata[name] for record in ws.lake.records("recaptioned").values())


def test_nothing_changed_asks_no_captioner(ws):
    before = bytes_of(ws)
    assert counts(ws) == {}
    assert bytes_of(ws) == before
    assert written(ws, "ssc_written") == written(ws, "dsc_written") == NUM_SHARDS * NUM_ROWS


def test_a_new_dsc_captioner_writes_no_ssc_again(ws):
    plant(ws, "dsc", "dsc-2", "prefixes")
    choose_champions(ws)
    assert counts(ws) == {"dsc-2": NUM_SHARDS * NUM_ROWS}
    assert written(ws, "ssc_written") == 0
    assert written(ws, "ssc_reused") == written(ws, "dsc_written") == NUM_SHARDS * NUM_ROWS
    rows = ws.lake.read_table(ws.lake.records("recaptioned")["00003"].path).to_pylist()
    assert rows[0]["dsc"].startswith("a picture of ")
    assert rows[0]["dsc_captioner"] == ws.parent("dsc_captioner").registry
    incremental = bytes_of(ws)
    assert counts(ws.forced()) == {"ssc-1": NUM_SHARDS * NUM_ROWS, "dsc-2": NUM_SHARDS * NUM_ROWS}
    assert bytes_of(ws) == incremental


def test_new_rows_of_a_shard_write_only_themselves(ws, tmp_path):
    grown = opened(tmp_path, NUM_ROWS + 1)
    make(grown, "raw_pairs")
    assert counts(grown) == {"ssc-1": NUM_SHARDS, "dsc-1": NUM_SHARDS}
    assert written(grown, "dsc_reused") == NUM_SHARDS * NUM_ROWS
    incremental = bytes_of(grown)
    counts(grown.forced())
    assert bytes_of(grown) == incremental


def test_a_champion_that_comes_back_writes_nothing(ws):
    plant(ws, "dsc", "dsc-2", "prefixes")
    choose_champions(ws)
    counts(ws)
    plant(ws, "dsc", "dsc-1")
    choose_champions(ws)
    assert counts(ws) == {}
    row = ws.lake.read_table(ws.lake.records("recaptioned")["00000"].path).to_pylist()[0]
    assert row["dsc"] == world.dsc(world.scene_for(0, ws.dataset.scene_seed))


def test_another_clip_scores_again_and_writes_nothing(ws, tmp_path):
    before = ws.lake.read_table(ws.lake.records("recaptioned")["00000"].path)
    other = opened(tmp_path, **{"clip.training.seed": "1"})
    make(other, "clip")
    choose_champions(other)
    assert counts(other) == {}
    after = other.lake.read_table(other.lake.records("recaptioned")["00000"].path)
    assert after["dsc"].equals(before["dsc"])
    assert not after["dsc_score"].equals(before["dsc_score"])
    rescored = bytes_of(other)
    counts(other.forced())
    assert bytes_of(other) == rescored


def test_other_thresholds_and_other_sampling_are_told_apart(ws, tmp_path):
    thresholds = opened(tmp_path, **{"recaption.quality.max_words": "4"})
    assert counts(thresholds) == {}
    rejected = thresholds.lake.records("recaptioned")["00000"].metadata["rejected"]
    assert rejected == NUM_ROWS
    sampling = opened(tmp_path, **{"recaption.temperature": "0.5"})
    assert counts(sampling) == {"ssc-1": NUM_SHARDS * NUM_ROWS, "dsc-1": NUM_SHARDS * NUM_ROWS}


def test_a_row_whose_caption_fails_keeps_its_place_and_is_tried_again(ws, tmp_path):
    promote_untested(ws, "dsc", "dsc-2", "fails on dark pictures")
    counts(ws)
    table = ws.lake.read_table(ws.lake.records("recaptioned")["00000"].path)
    keys = ws.lake.read_table(ws.parent("raw_pairs", "00000").path, ["key"])["key"]
    assert table["key"].equals(keys)
    failed = [row for row in table.to_pylist() if row["dsc"] is None]
    assert 0 < len(failed) < NUM_ROWS
    assert {row["rejected"] for row in failed} == {"dsc failed: RuntimeError: the picture is too dark"}
    assert all(row["ssc"] and row["dsc_score"] is None for row in failed)
    grown = opened(tmp_path, NUM_ROWS + 1)
    make(grown, "raw_pairs")
    counts(grown)
    assert grown.lake.records("recaptioned")["00000"].metadata["dsc_written"] == len(failed) + 1


def test_a_slice_can_be_verified(ws):
    (comparison,) = verify(ws, ("recaptioned",))
    assert comparison.is_equal
