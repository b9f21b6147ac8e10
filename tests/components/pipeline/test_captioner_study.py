"""The curve over example numbers: its cells, its table, and that nothing is trained twice."""

import pytest

from components.pipeline import captioner_study
from components.pipeline.captioner_study import study_captioners, table_of
from components.pipeline.graph import make
from components.pipeline.workspace import UnfitParent, Workspace
from tests.workspaces import scenes_workspace

SMALL = {
    "data.max_shards": "1",
    "data.max_rows_per_shard": "100",
    **{f"{asset}.training.num_steps": "2" for asset in ("clip", "base_captioner", "ssc_captioner", "dsc_captioner")},
}


@pytest.fixture(scope="module")
def ws(tmp_path_factory) -> Workspace:
    workspace = scenes_workspace(tmp_path_factory.mktemp("study"), SMALL)
    for asset in ("raw_pairs", "image_set", "clip", "base_captioner"):
        make(workspace, asset)
    return workspace


def test_every_cell_is_measured_once_and_stands_in_the_table(ws, monkeypatch):
    report = study_captioners(ws, (8, 16))
    cells = {(cell["kind"], cell["examples"]): cell["figures"] for cell in report["cells"]}
    assert set(cells) == {("raw", None), ("ssc", 8), ("ssc", 16), ("dsc", 8), ("dsc", 16)}
    value, interval, num_samples = cells["raw", None]["attribute_accuracy"]
    assert interval[0] < value < interval[1]
    assert num_samples > report["num_pictures"]
    table = ws.lake.read_bytes("reports/captioner_study/latest/table.md").decode()
    assert table == table_of(report)
    assert table.count("\n") == 2 + len(cells)
    assert "| DSC | 16 | " in table

    def refuse(*_):
        raise AssertionError("a finished cell is trained again")

    monkeypatch.setattr(captioner_study._Study, "_trained", refuse)
    assert study_captioners(ws, (8, 16)) == report
    with pytest.raises(AssertionError, match="trained again"):
        study_captioners(ws, (8, 16, 32))


def test_too_few_examples_are_counted(ws):
    with pytest.raises(UnfitParent, match=r"only 9\d ssc examples of 2000 lie in the image set: raise data"):
        study_captioners(ws)
