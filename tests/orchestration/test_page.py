import argparse
import sys

import pytest
from PIL import Image

from components.pipeline.generate import Drawing
from orchestration.page import PAGE_COMMANDS, drawings_html, heading_html, problem_html

HOSTILE = '<script>alert("&")</script> \' "'
ESCAPED = "&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/script&gt; &#x27; &quot;"


def drawing(prompt: str, side: int = 32, **changed) -> Drawing:
    facts = {"prompt": prompt, "written": prompt, "read": prompt, "seed": 0, "decoder": "vae"} | changed
    return Drawing(**facts, image=Image.new("RGB", (side, side)))


def test_texts_are_escaped_wherever_they_are_shown():
    shown = drawings_html([drawing(HOSTILE, written=f"{HOSTILE}!", read=f"{HOSTILE}?")], [HOSTILE])
    shown += heading_html({"latent_diffusion": HOSTILE, "consistency_decoder": HOSTILE}, HOSTILE, HOSTILE, HOSTILE)
    shown += problem_html(HOSTILE)
    assert "<script" not in shown
    assert shown.count(ESCAPED) == 10


def test_the_reader_is_told_what_the_model_read():
    plain = drawings_html([drawing("red star")], ["name/1"])
    assert "The model read <b>red star</b>" in plain
    assert "Drawn by <b>name/1</b>" in plain
    assert "Upsampled" not in plain
    upsampled = drawings_html([drawing("red star", written="a red star", read="a red star")], [])
    assert "Upsampled to <b>a red star</b>" in upsampled
    assert "The model read" not in upsampled
    assert "Too long, the model read only <b>a red</b>" in drawings_html([drawing("a red star", read="a red")], [])


def test_small_pictures_are_enlarged_without_blur():
    assert 'class="crisp"' in drawings_html([drawing("x", 32)], [])
    assert 'class="crisp"' not in drawings_html([drawing("x", 256)], [])


def test_the_decoders_of_a_seed_stand_side_by_side():
    drawings = [drawing("x", seed=seed, decoder=name) for seed in (3, 4) for name in ("vae", "consistency")]
    shown = drawings_html(drawings, [])
    assert shown.count('class="seed"') == 2
    places = [shown.index(words) for words in ("VAE, seed 3", "two-step decoder, seed 3", "VAE, seed 4")]
    assert places == sorted(places)


def test_the_heading_says_who_draws_or_what_to_do():
    assert "There is no champion yet. Materialize latent_diffusion" in heading_html({}, "champion", "scenes", "tiny")
    half = heading_html({"latent_diffusion": "name/3"}, "candidate", "scenes", "tiny")
    assert "candidate <b>name/3</b>" in half
    assert "the two-step decoder has no candidate yet" in half


def test_without_gradio_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    (command,) = PAGE_COMMANDS
    with pytest.raises(RuntimeError, match=r'pip install "atelier\[page\]"'):
        command.run(None, argparse.Namespace())
