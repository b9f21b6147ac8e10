"""The studio on what the demo left: it draws with the champion of the moment, and says so."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from components.pipeline.studio import MAX_SEED, Studio, Wish, read_wish
from components.pipeline.workspace import UnfitParent
from tests.workspaces import scenes_workspace

pytestmark = pytest.mark.smoke
WISH = Wish(prompt="small blue star", num_inference_steps=2, guidance_scale=2.0)


@pytest.fixture
def ws(home, tmp_path):
    """The demo's models that draw, in a lake of their own with an empty registry."""
    for asset in ("vae", "prompt_upsampler", "latent_diffusion", "consistency_decoder"):
        shutil.copytree(home / "lake" / "models" / asset, tmp_path / "lake" / "models" / asset)
    return scenes_workspace(tmp_path, {})


def promote(ws, asset: str) -> str:
    """Register the asset's current folder as a new version and make it the champion."""
    uri = ws.lake.uri(ws.lake.record(asset, "model").path)
    version = ws.tracker.register(ws.registry_name(asset), uri, run=None, tags={}, parents=[])
    ws.tracker.set_alias(version, "champion")
    return str(version)


def test_a_new_champion_draws_the_next_wish(ws):
    studio = Studio(ws)
    with pytest.raises(UnfitParent, match="latent_diffusion has no champion"):
        studio.draw(WISH)
    assert studio.versions() == {}
    first = promote(ws, "latent_diffusion")
    artist, drawings = studio.draw(WISH)
    assert str(artist.versions["latent_diffusion"]) == first
    assert [drawing.decoder for drawing in drawings] == ["vae"]  # no student has been promoted yet
    again, same = studio.draw(WISH)
    assert again is artist
    assert same[0].image.tobytes() == drawings[0].image.tobytes()
    student, second = promote(ws, "consistency_decoder"), promote(ws, "latent_diffusion")
    assert studio.versions() == {"latent_diffusion": second, "consistency_decoder": student}
    artist, drawings = studio.draw(WISH)
    assert str(artist.versions["latent_diffusion"]) == second != first
    assert [drawing.decoder for drawing in drawings] == ["vae", "consistency"]
    assert drawings[0].image.tobytes() == same[0].image.tobytes()  # the same weights, whatever their number


def test_the_pipeline_is_decoded_by_the_vae_it_was_trained_with(ws, tmp_path):
    import torch
    from diffusers import AutoencoderKL

    promote(ws, "latent_diffusion")
    (expected,) = Studio(ws).draw(WISH)[1]
    vae = AutoencoderKL.from_pretrained(ws.model_folder("vae"))
    torch.nn.init.zeros_(vae.decoder.conv_out.weight)
    vae.save_pretrained(tmp_path / "made_again")
    version = ws.lake.add_folder("models/vae", tmp_path / "made_again")
    ws.lake.set_current(replace(ws.parent("vae"), data_version=version, path=f"models/vae/{version}", pictures={}))
    (drawn,) = Studio(ws).draw(WISH)[1]
    assert drawn.image.tobytes() == expected.image.tobytes()


def test_askers_at_the_same_time_get_what_each_asked_for(ws):
    promote(ws, "latent_diffusion")
    studio = Studio(ws)
    wishes = [WISH.model_copy(update={"seed": seed}) for seed in (MAX_SEED, 0, 1)]
    alone = [studio.draw(wish)[1][0].image.tobytes() for wish in wishes]
    with ThreadPoolExecutor(3) as askers:
        together = [drawings[0].image.tobytes() for _, drawings in askers.map(studio.draw, wishes)]
    assert together == alone
    assert len(set(alone)) == 3
    _, drawings = studio.draw(WISH.model_copy(update={"seed": MAX_SEED, "num_pictures": 2}))
    assert [drawing.seed for drawing in drawings] == [MAX_SEED, 0]


def test_what_the_model_reads_is_cut_off_where_its_tokens_end(ws):
    promote(ws, "latent_diffusion")
    prompt = "large red circle " * 20
    (drawing,) = Studio(ws).draw(WISH.model_copy(update={"prompt": prompt}))[1]
    assert drawing.written == prompt
    assert drawing.read.startswith("large red circle large")
    assert len(drawing.read) < len(prompt) / 2


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"prompt": "x" * 501}, "prompt: String should have at most 500 characters"),
        ({"num_pictures": 9}, "num_pictures: Input should be less than or equal to 8"),
        ({"num_inference_steps": 0}, "num_inference_steps: Input should be greater than or equal to 1"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"seed": None}, "seed: Input should be a valid integer"),
    ],
)
def test_a_wish_out_of_its_limits_is_refused(asked, words):
    with pytest.raises(ValueError, match=words):
        read_wish(**{**WISH.model_dump(), **asked})
