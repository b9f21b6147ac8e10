"""Which arms the study has, what makes two arms differ, and when an arm counts as finished."""

import dataclasses

import pytest

from components.data.catalog import load_dataset
from components.data.lake import Record
from components.pipeline.judging import blend_name
from components.pipeline.study import (
    ARMS,
    BLENDS,
    DEMO_ARM,
    arms_of,
    finished_arms,
    identity_of,
    section_of_arm,
    train_arm,
)
from components.pipeline.workspace import UnfitParent, Workspace
from tests.workspaces import scenes_workspace


@pytest.fixture
def ws(tmp_path) -> Workspace:
    return scenes_workspace(tmp_path, {"study.num_seeds": "2"})


def test_all_blends_come_once_before_any_comes_again(ws):
    arms = arms_of(ws.recipe, ws.dataset)
    assert arms == [f"{blend}-seed{seed}" for seed in (0, 1) for blend in BLENDS]
    assert set(arms) <= set(ARMS)
    assert arms[0] == DEMO_ARM


def test_two_blends_are_trained_longer_at_the_end(ws):
    ws = ws.with_recipe(ws.recipe.with_overrides({"study.long_factor": "12"}))
    assert arms_of(ws.recipe, ws.dataset)[-2:] == ["raw-long-seed0", "dsc-95-long-seed0"]
    long, usual = (section_of_arm(ws, arm) for arm in ("dsc-95-long-seed0", "dsc-95-seed0"))
    assert long.model == usual.model
    assert long.training.num_steps == 12 * usual.training.num_steps
    assert long.training.compile
    more = {"num_steps": usual.training.num_steps, "compile": False}
    assert long.training.model_copy(update=more) == usual.training


def test_longer_arms_of_cut_weights_are_not_compiled(ws):
    cut = {"latent_diffusion.training.sharding": "full", "study.long_factor": "2"}
    ws = ws.with_recipe(ws.recipe.with_overrides(cut))
    assert not section_of_arm(ws, "raw-long-seed0").training.compile


def test_there_is_no_oracle_without_ground_truth(ws, monkeypatch):
    monkeypatch.setenv("EMOJI_URI", "unused")
    emoji = load_dataset("emoji")
    assert not any(arm.startswith("oracle") for arm in arms_of(ws.recipe, emoji))


@pytest.mark.parametrize("blend", BLENDS)
def test_arms_differ_in_captions_and_seed_alone(ws, blend):
    ours, main = section_of_arm(ws, f"{blend}-seed1"), ws.recipe.latent_diffusion
    assert blend_name(ours.model) == blend
    changed = {"synthetic_kind", "synthetic_fraction"}
    assert ours.model.model_dump(exclude=changed) == main.model.model_dump(exclude=changed)
    assert ours.training == main.training.model_copy(update={"seed": main.training.seed + 1})


def test_an_arm_that_is_not_asked_for_is_refused(ws):
    with pytest.raises(UnfitParent, match=r"study\.num_seeds is 2"):
        train_arm(ws, "raw-seed2")


def test_an_arm_of_other_captions_is_not_finished(ws):
    record = Record("training_set", "model", "scenes", "smoke", "f", "old", "")
    parents = ("training_set", "vae", "text_encoder", "prompt_upsampler", "evaluation_clip", "attribute_judge")
    for name in parents:
        kind = "manifest" if name == "training_set" else "model"
        ws.lake.set_current(dataclasses.replace(record, asset=name, kind=kind))
    fingerprint = ws.fingerprint("caption_blend_study", *identity_of(ws, "raw-seed0"))
    arm = dataclasses.replace(record, asset="caption_blend_study", shard="raw-seed0", fingerprint=fingerprint)
    ws.lake.set_current(arm)
    assert list(finished_arms(ws)) == ["raw"]
    ws.lake.set_current(dataclasses.replace(record, asset="vae", data_version="new"))
    assert finished_arms(ws) == {}
