"""A world with styles and text, asked for in dataset.yaml, reaches truth, golden pictures and judges."""

from pathlib import Path

import yaml

from components.data.catalog import DATASETS, load_dataset
from components.pipeline.champions import golden_pictures
from components.pipeline.graph import make
from components.pipeline.rows import load_rows
from tests.workspaces import scenes_workspace


def test_styles_and_text_reach_truth_and_judges(tmp_path: Path):
    facts = yaml.safe_load((DATASETS / "scenes" / "dataset.yaml").read_text())
    facts["source"] |= {"styles": True, "text": True}
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "dataset.yaml").write_text(yaml.safe_dump(facts))
    small = {"data.max_shards": "1", "data.max_rows_per_shard": "200", "data.resolution": "64"}
    small |= {f"{judge}.training.num_steps": "1" for judge in ("attribute_judge", "second_judge")}
    ws = scenes_workspace(tmp_path / "home", small, dataset=load_dataset("scenes", tmp_path))
    make(ws, "raw_pairs")
    make(ws, "image_set")
    rows = load_rows(ws, with_truth=True)
    assert any(item.style == "striped" for scene in rows.train.scenes or () for item in scene.objects)
    assert any("text" in (text or "") for text in rows.train.texts["truth_dsc"])
    assert len(golden_pictures(ws, rows)) == 2 * min(32, len(rows.evaluation))
    for judge in ("attribute_judge", "second_judge"):
        (made,) = make(ws, judge)
        assert {"accuracy/style", "accuracy/letter_1"} <= set(made.record.metadata)
