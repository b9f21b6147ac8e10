"""A checkpoint that the test creates and saves is loaded, kept and driven as one from the hub would be."""

from pathlib import Path

import numpy as np
import pytest

from components.contracts import Rows
from components.families.hub_captioner.config import HubCaptionerConfig
from components.families.hub_captioner.model import load_hub_captioner
from tests.checkpoints import save_blip, save_llava


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    return save_blip(tmp_path_factory.mktemp("blip"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return save_llava(tmp_path_factory.mktemp("llava"))


def captioner(checkpoint, folder, **changes):
    """The captioner of the folder that the family saves."""
    given = {"prompt": "a photo of", "max_new_tokens": 6, "min_side": 32, "batch_size": 2}
    config = HubCaptionerConfig(pretrained=checkpoint, **(given | changes))
    family = config.build(rows(), rows(), {})
    family.save(folder)
    return load_hub_captioner(folder)


def rows():
    pixels = np.random.default_rng(1).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    return Rows(list("abc"), pixels, {"caption": ["one", None, "three"]})


def test_a_prompted_model_answers_without_its_prompt(blip, pixels, tmp_path):
    captions = captioner(blip, tmp_path).caption(pixels, list("abcde"))
    assert len(captions) == 5
    assert all(caption and not caption.lower().startswith("a photo of") for caption in captions)


def test_a_model_without_prompt_captions_too(blip, pixels, tmp_path):
    writer = captioner(blip, tmp_path, prompt="")
    assert writer.caption(pixels, list("abcde")) == writer.caption(pixels, list("vwxyz"))


def test_a_chat_model_is_asked_through_its_chat_template(llava, pixels, tmp_path):
    captions = captioner(llava, tmp_path, prompt="describe this").caption(pixels, list("abcde"))
    assert len(captions) == 5
    assert all("USER" not in caption and "describe" not in caption for caption in captions)


def test_without_a_checkpoint_of_its_own_it_takes_the_base_captioner(blip, pixels, tmp_path):

    family = HubCaptionerConfig(min_side=32, max_new_tokens=6).build(rows(), rows(), {"base_captioner": Path(blip)})
    shown = family.preview()
    assert [row["caption"] for row in shown.rows] == ["one", "", "three"]
    assert all(row["written"] for row in shown.rows)
    with pytest.raises(ValueError, match="needs pretrained"):
        HubCaptionerConfig().build(rows(), rows(), {})


def test_it_refuses_to_be_trained(blip):
    family = HubCaptionerConfig(pretrained=blip, min_side=32).build(rows(), rows(), {})
    with pytest.raises(ValueError, match=r"set its training\.num_steps to 0"):
        family.batch(np.arange(2), None)
