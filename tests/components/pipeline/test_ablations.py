"""Ablations at equal time: what is trained, what is kept, and that nothing is trained twice."""

import pytest

from components.data import scenes as world
from components.pipeline import ablations
from components.pipeline.ablations import Ablation, study_ablations, table_of
from components.pipeline.graph import make
from components.pipeline.workspace import Workspace
from tests.workspaces import scenes_workspace
from tests.writers import caption_all

SMALL = {
    "data.max_shards": "1",
    "data.max_rows_per_shard": "256",
    "evaluation.num_prompts": "4",
    "evaluation.num_pictures": "8",
    "evaluation.num_inference_steps": "2",
    "prompt_upsampler.training.num_steps": "2",
}
MODELS = ("vae", "latents", "evaluation_clip", "attribute_judge")
TWO = (
    Ablation("as it is", wording="free"),
    Ablation("no rewriting first", {"prompt_upsampler.training.num_steps": "0"}),
)


@pytest.fixture(scope="module")
def ws(tmp_path_factory) -> Workspace:
    steps = {f"{asset}.training.num_steps": "2" for asset in MODELS if asset != "latents"}
    workspace = scenes_workspace(tmp_path_factory.mktemp("ablations"), {**SMALL, **steps})
    for asset in ("raw_pairs", "image_set"):
        make(workspace, asset)
    caption_all(workspace)
    for asset in ("training_set", *MODELS):
        make(workspace, asset)
    return workspace


def test_each_arm_is_trained_once_for_its_minutes(ws, monkeypatch):
    monkeypatch.setattr(ablations, "seconds_of_a_step", lambda build, training: 100.0)
    report = study_ablations(ws, 10, TWO)
    first, second = report["arms"]
    assert first["text_encoder_seconds"] > second["text_encoder_seconds"] == 0
    for arm in report["arms"]:
        assert arm["num_steps"] == pytest.approx((600 - arm["text_encoder_seconds"]) / 100, abs=0.501)
    for arm in report["arms"]:
        value, _, num_samples = arm["figures"]["object_accuracy"]
        assert 0 <= value <= 1
        assert num_samples >= 4
    table = ws.lake.read_bytes("reports/ablations/latest/table.md").decode()
    assert table == table_of(report)
    assert "| no rewriting first | template | 6 | " in table

    monkeypatch.setattr(ablations, "trained_aside", None)
    assert study_ablations(ws, 10, TWO) == report


def test_a_text_encoder_that_takes_all_the_time_is_refused(ws):
    with pytest.raises(ValueError, match="which leaves none for the U-Net: give more minutes"):
        study_ablations(ws, 1e-6, TWO[:1])


def test_freely_phrased_captions_say_what_the_template_says():
    wordings = set()
    for index in range(200):
        scene = world.scene_for(index, 0)
        text = world.freely_phrased(scene, index, 0)
        said, shown = world.parse_facts(text), world.facts_of(scene)
        assert {(o.shape, o.color, o.size, o.place) for o in said.objects} == {
            (o.shape, o.color, o.size, o.place) for o in shown.objects
        }, text
        assert said.background == shown.background
        wordings.add(text.split()[0])
    assert len(wordings) > 10
