"""Recipes of public weights: the code that would load T5-XXL, SD's VAE and a vision-language model loads small ones."""

import json

import numpy as np
import pytest
import torch
from transformers import T5EncoderModel

from components.families.clip.sample import load_clip
from components.families.hub_captioner.config import HubCaptionerConfig
from components.families.latent_diffusion.model import load_pipeline, new_unet
from components.families.latent_diffusion.sample import generate
from components.pipeline.graph import ORDER, make
from components.pipeline.verify import verify
from components.pipeline.workspace import Workspace
from components.recipes import load_recipe
from tests.checkpoints import save_blip, save_t5, save_vae
from tests.workspaces import scenes_workspace

UNTRAINED = ("base_captioner", "ssc_captioner", "dsc_captioner", "vae", "prompt_upsampler")
SHORT = {"max_new_tokens": 6, "min_side": 32}


@pytest.fixture(scope="module")
def ws(tmp_path_factory) -> Workspace:
    """The recipe smoke with a checkpoint wherever ``paper`` has one, made up to the text-to-image model."""
    folder = tmp_path_factory.mktemp("hub")
    blip = save_blip(folder / "blip")
    save_vae(folder / "vae")
    save_t5(folder / "t5", ["a large red circle"])
    captioners = {
        "base_captioner": HubCaptionerConfig(pretrained=blip, **SHORT),
        "ssc_captioner": HubCaptionerConfig(prompt="a", **SHORT),
        "dsc_captioner": HubCaptionerConfig(**SHORT),
    }
    overrides = {
        **{f"{asset}.model": config.model_dump_json() for asset, config in captioners.items()},
        **{f"{asset}.training.num_steps": "0" for asset in UNTRAINED},
        "vae.model.pretrained": str(folder / "vae"),
        "prompt_upsampler.model.pretrained": str(folder / "t5"),
        "latent_diffusion.model.trains_text_encoder": "false",
        "latent_diffusion.training.num_steps": "2",
        "clip.training.num_steps": "1",
        "data.max_shards": "1",
        "data.max_rows_per_shard": "64",
    }
    workspace = scenes_workspace(folder, overrides)
    for asset in ORDER[: ORDER.index("latent_diffusion") + 1]:
        make(workspace, asset)
    return workspace


def test_a_hub_captioner_writes_both_captions_of_every_row(ws):
    rows = ws.lake.read_table(ws.lake.record("recaptioned", "table", "00000").path).to_pylist()
    assert len(rows) == 64
    assert all(row["dsc"] for row in rows)
    assert all(row["ssc"] is not None for row in rows)
    assert {row["dsc_captioner"] for row in rows} == {ws.parent("dsc_captioner").registry}


def test_the_checkpoints_reach_the_pipeline_unchanged(ws, tmp_path):
    pipeline = load_pipeline(ws.model_folder("latent_diffusion"))
    torch.testing.assert_close(pipeline.vae.state_dict(), save_vae(tmp_path / "vae").state_dict())
    save_t5(tmp_path / "t5", ["a large red circle"])
    t5 = T5EncoderModel.from_pretrained(tmp_path / "t5")
    torch.testing.assert_close(pipeline.text_encoder.state_dict(), t5.state_dict())
    assert generate(pipeline, ["a circle"], [0], num_inference_steps=2, guidance_scale=3.0).shape == (1, 32, 32, 3)


def test_a_kept_checkpoint_can_be_verified(ws):
    captioner = next(iter(verify(ws, ("dsc_captioner",))))
    assert captioner.is_equal
    assert captioner.slice == "the checkpoint"
    other = ws.recipe.with_overrides({"dsc_captioner.model.max_new_tokens": "7"})
    assert not next(iter(verify(ws.with_recipe(other), ("dsc_captioner",)))).is_equal


@pytest.mark.parametrize("name", ["base", "paper"])
def test_large_recipes_build_their_own_u_net(name):
    recipe = load_recipe(name)
    assert type(recipe).model_validate(json.loads(recipe.model_dump_json())) == recipe
    config = recipe.latent_diffusion.model
    with torch.device("meta"):
        unet = new_unet(config, (4, 32, 32), 4096)
        out = unet(torch.zeros(2, 4, 32, 32), torch.zeros(2), torch.zeros(2, 77, 4096)).sample
    assert out.shape == (2, 4, 32, 32)
    assert sum(parameter.numel() for parameter in unet.parameters()) > 50e6


def test_a_clip_of_the_hub_measures_as_it_is(ws, tmp_path):
    (own,) = make(ws, "evaluation_clip")
    folder = ws.model_folder("evaluation_clip")
    hub = {"evaluation_clip.model.pretrained": str(folder), "evaluation_clip.training.num_steps": "0"}
    (kept,) = make(ws.with_recipe(ws.recipe.with_overrides(hub)), "evaluation_clip")
    assert not kept.is_reused
    texts, pixels = ["large red circle", "small blue star"], np.zeros((2, 32, 32, 3), np.uint8)
    before, after = (load_clip(ws.lake.fetch_folder(one.record.path, tmp_path)) for one in (own, kept))
    np.testing.assert_array_equal(before.score(pixels, texts), after.score(pixels, texts))
