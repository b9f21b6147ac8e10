import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

from components.contracts import Rows
from components.data import scenes
from components.data.lake import folder_digest
from components.families.captioner.config import CaptionerConfig
from components.families.captioner.model import load_parts
from components.families.captioner.sample import GeneratingCaptioner, load_captioner
from components.families.clip.config import ClipConfig
from components.training.config import TrainingConfig
from components.training.loop import Trainer
from components.training.randomness import SeededRandom

ROOT = Path(__file__).parents[3]
SMALL = {"tower_widths": (16, 16, 32, 32), "decoder_width": 32, "decoder_layers": 1}
NUM_EXAMPLES = 40


def training(num_steps: int, **changes) -> TrainingConfig:
    return TrainingConfig(
        num_steps=num_steps, batch_size=16, learning_rate=5e-3, num_warmup_steps=5, precision="fp32", **changes
    )


def make_rows(start: int, count: int) -> Rows:
    drawn = [scenes.scene_for(index, 0) for index in range(start, start + count)]
    numbers = range(start, start + count)
    texts = {
        "caption": [scenes.raw_caption(scene, index, 0) for index, scene in zip(numbers, drawn, strict=True)],
        "dsc_example": [scenes.dsc(scene) if n < NUM_EXAMPLES else None for n, scene in enumerate(drawn)],
    }
    return Rows([scenes.key_for(index) for index in numbers], scenes.render(drawn, 32), texts, None, drawn)


@pytest.fixture(scope="module")
def rows():
    return make_rows(0, 120), make_rows(1000, 24)


@pytest.fixture(scope="module")
def clip(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    widths = {"vision_width": 32, "text_width": 32, "projection_dim": 16, "vision_layers": 1, "text_layers": 1}
    ClipConfig(**widths).build(*rows, {}).save(folder)
    return folder


@pytest.fixture(scope="module")
def base(rows, clip, tmp_path_factory):
    """A base captioner after a few steps: the family, its losses, its folder."""
    family = CaptionerConfig(contrastive_weight=0.5, **SMALL).build(*rows, {"clip": clip})
    trainer = Trainer(family, training(40, log_every=1))
    scalars = [step.scalars for step in trainer.run()]
    folder = tmp_path_factory.mktemp("base")
    with trainer.averaged_weights():
        family.save(folder)
    return family, scalars, folder


@pytest.fixture(scope="module")
def fine_tuned(rows, base, tmp_path_factory):
    """A descriptive captioner, fine-tuned from the base long enough to speak the examples' language."""
    family = CaptionerConfig(text_kind="dsc_example").build(*rows, {"base_captioner": base[2]})
    trainer = Trainer(family, training(150, log_every=1))
    scalars = [step.scalars for step in trainer.run()]
    folder = tmp_path_factory.mktemp("dsc")
    with trainer.averaged_weights():
        family.save(folder)
    return family, scalars, folder


def mean_of(scalars, name, part):
    return np.mean([step[f"captioner/{name}"] for step in scalars[part]])


def test_base_training_lowers_both_losses(base):
    _, scalars, _ = base
    for name in ("language", "contrastive"):
        assert mean_of(scalars, name, slice(-5, None)) < mean_of(scalars, name, slice(5))
    assert scalars[0]["captioner/loss"] == pytest.approx(
        scalars[0]["captioner/language"] + 0.5 * scalars[0]["captioner/contrastive"], rel=1e-5
    )


def test_the_frozen_clip_does_not_move_and_is_not_saved(rows, clip):
    family = CaptionerConfig(contrastive_weight=0.5, **SMALL).build(*rows, {"clip": clip})
    before = [p.clone() for p in family.frozen.clip[0].parameters()]
    moved = family.frozen.projection.weight.detach().clone()
    list(Trainer(family, training(2)).run())
    assert all(torch.equal(a, b) for a, b in zip(before, family.frozen.clip[0].parameters(), strict=True))
    assert not torch.equal(moved, family.frozen.projection.weight)
    assert set(family.modules()) == {"captioner", "contrastive"}
    assert len(family.modules()["contrastive"].state_dict()) == 2


def test_fine_tuning_learns_from_the_examples_alone(fine_tuned, base):
    family, scalars, _ = fine_tuned
    assert family.num_rows == NUM_EXAMPLES
    assert len(family.parts.tokenizer) == len(base[0].parts.tokenizer)
    assert mean_of(scalars, "loss", slice(-5, None)) < 0.6 * mean_of(scalars, "loss", slice(5))


def test_words_of_the_examples_are_single_tokens_of_the_base(base):
    tokenizer = base[0].parts.tokenizer
    for word in [
        "large",
        "small",
        "red",
        "purple",
        "circle",
        "triangle",
        "top",
        "bottom",
        "left",
        "right",
        "background",
    ]:
        assert len(tokenizer.tokenize(word)) == 1, word


def test_a_preview_shows_pictures_with_what_was_written(fine_tuned, rows):
    preview = fine_tuned[0].preview()
    assert len(preview.rows) == 8
    assert preview.rows[0]["key"] == rows[1].keys[0]
    assert preview.rows[0]["written"]
    assert preview.image is not None
    assert {"mean_words", "language_loss"} <= set(preview.metrics)


def test_a_batch_depends_on_seed_step_and_row_alone(base):
    family = base[0]
    numbers = np.array([5, 2, 9])
    whole = family.batch(numbers, SeededRandom(0, 3, numbers))
    alone = family.batch(numbers[1:2], SeededRandom(0, 3, numbers[1:2]))
    assert torch.equal(whole["pixels"][1], alone["pixels"][0])
    length = alone["labels"].shape[1]
    assert torch.equal(whole["labels"][1, :length], alone["labels"][0])
    assert (whole["labels"][1, length:] == -100).all()


def test_the_loss_of_a_batch_is_the_mean_of_its_halves(fine_tuned):
    """So a gang of workers, each with its share, averages to what one worker sees."""
    family = fine_tuned[0]
    numbers = np.arange(8)

    def loss(part):
        return float(family.objective.loss(family.batch(part, SeededRandom(0, 0, part)), None).value)

    with torch.no_grad():
        assert loss(numbers) == pytest.approx((loss(numbers[:4]) + loss(numbers[4:])) / 2, rel=1e-5)


def test_same_weights_make_the_same_files(fine_tuned, tmp_path):
    fine_tuned[0].parts.save(tmp_path)
    assert folder_digest(tmp_path) == folder_digest(fine_tuned[2])


def test_the_saved_captioner_says_what_the_trained_one_said(fine_tuned, rows):
    evaluation = rows[1]
    expected = GeneratingCaptioner(fine_tuned[0].parts).caption(evaluation.pixels, evaluation.keys)
    parts = load_parts(fine_tuned[2])
    assert GeneratingCaptioner(parts).caption(evaluation.pixels, evaluation.keys) == expected
    assert parts.model.config.decoder._attn_implementation == "eager"
    spoken = load_captioner(fine_tuned[2]).caption(evaluation.pixels, evaluation.keys)  # in the fastest type
    assert np.mean([one == other for one, other in zip(spoken, expected, strict=True)]) > 0.8


def test_drawn_captions_depend_on_the_key_and_seed_and_not_on_the_batch(fine_tuned, rows):
    pixels, keys = rows[1].pixels[:6], rows[1].keys[:6]
    parts = load_parts(fine_tuned[2])
    drawn = GeneratingCaptioner(parts, temperature=1.0, seed=3).caption(pixels, keys)
    alone = GeneratingCaptioner(parts, temperature=1.0, seed=3).caption(pixels[4:5], keys[4:5])
    assert drawn[4:5] == alone
    assert drawn != GeneratingCaptioner(parts, temperature=1.0, seed=4).caption(pixels, keys)
    again = GeneratingCaptioner(parts, temperature=1.0, seed=3).caption(pixels[[0, 0]], ["one", "other"])
    assert again[0] != again[1]


def test_drawing_follows_the_model_and_temperature():
    """The largest of logits plus noise is a draw from softmax(logits / temperature)."""
    from components.families.captioner.sample import GumbelNoise

    logits = torch.tensor([0.0, 1.0, 2.0]).repeat(4000, 1)
    noise = GumbelNoise([str(row) for row in range(4000)], temperature=0.5)
    drawn = noise(torch.zeros(4000, 1), logits).argmax(1)
    shares = torch.bincount(drawn, minlength=3) / 4000
    torch.testing.assert_close(shares, (logits[0] / 0.5).softmax(0), atol=0.03, rtol=0)


STOCK = """
import sys
sys.path = [path for path in sys.path if path != ROOT]
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
try:
    import components
except ImportError:
    pass
else:
    sys.exit("Atelier is importable, the test proves nothing")
model = AutoModelForImageTextToText.from_pretrained(FOLDER, trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
processor = AutoImageProcessor.from_pretrained(FOLDER, backend="pil")
inputs = processor([Image.open(picture) for picture in PICTURES], return_tensors="pt")
for text in tokenizer.batch_decode(model.generate(**inputs), skip_special_tokens=True):
    print(text.strip())
"""


def test_a_stock_class_loads_the_folder_without_atelier(fine_tuned, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))  # where transformers copies the folder's code to
    pictures = []
    for number, pixels in enumerate(rows[1].pixels[:4]):
        pictures.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels).save(pictures[-1])
    given = {"ROOT": str(ROOT), "FOLDER": str(fine_tuned[2]), "PICTURES": pictures}
    program = "\n".join(f"{name} = {value!r}" for name, value in given.items()) + STOCK
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    ours = GeneratingCaptioner(load_parts(fine_tuned[2])).caption(rows[1].pixels[:4], rows[1].keys[:4])
    assert done.stdout.splitlines() == ours


def test_a_stock_encoder_decoder_can_be_fine_tuned(rows, base, tmp_path):
    """A checkpoint with a stock tower, as there are on the hub, is trained and captions."""
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    tokens = {"bos_token_id": 3, "eos_token_id": 1, "pad_token_id": 0}
    size = len(base[0].parts.tokenizer)
    decoder = GPT2Config(vocab_size=size, n_positions=40, n_embd=32, n_layer=1, n_head=2, **tokens)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(image_size=32, patch_size=8, **small), decoder
    )
    config.update({"decoder_start_token_id": 3, **tokens})
    VisionEncoderDecoderModel(config).save_pretrained(tmp_path)
    base[0].parts.tokenizer.save_pretrained(tmp_path)
    base[0].parts.normalization.processor().save_pretrained(tmp_path)
    family = CaptionerConfig(text_kind="dsc_example", pretrained=str(tmp_path)).build(*rows, {})
    scalars = [step.scalars for step in Trainer(family, training(12, log_every=1)).run()]
    assert scalars[-1]["captioner/loss"] < scalars[0]["captioner/loss"]
    assert len(family.preview().rows) == 8


def test_no_examples_is_an_error_with_a_remedy(rows):
    with pytest.raises(ValueError, match=r"0 training rows have a text of kind 'ssc_example'.*dataset\.yaml"):
        CaptionerConfig(text_kind="ssc_example", **SMALL).build(*rows, {})


def test_a_contrastive_loss_without_a_clip_is_an_error(rows):
    with pytest.raises(ValueError, match="needs the parent 'clip'"):
        CaptionerConfig(contrastive_weight=0.1, **SMALL).build(*rows, {})


def test_another_kind_of_model_is_refused(clip, rows):
    with pytest.raises(ValueError, match="holds a 'clip' model"):
        CaptionerConfig(pretrained=str(clip)).build(*rows, {})
