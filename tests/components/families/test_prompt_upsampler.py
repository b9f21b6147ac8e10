from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

from components.contracts import Rows
from components.data import scenes as world
from components.families.prompt_upsampler.config import PromptUpsamplerConfig
from components.families.prompt_upsampler.model import OFFSET_BIAS
from components.families.prompt_upsampler.objective import FrozenTextEncoder, PromptUpsamplerFamily
from components.families.prompt_upsampler.sample import PromptUpsampler, extract_text_encoder, load_upsampler
from components.training.config import TrainingConfig
from components.training.loop import Trainer
from components.training.randomness import SeededRandom
from tests.checkpoints import save_t5

SMALL = PromptUpsamplerConfig(vocab_size=400, d_model=32, d_ff=64, num_layers=1)
DESCRIPTIVE = "large red circle top left, small blue star bottom right, on a gray background"


def rows_of(first: int, number: int) -> Rows:
    scenes = [world.scene_for(index, 0) for index in range(first, first + number)]
    texts = {
        "caption": [world.raw_caption(scene, first + index, 0) for index, scene in enumerate(scenes)],
        "ssc": [world.ssc(scene) for scene in scenes],
        "dsc": [world.dsc(scene) for scene in scenes],
    }
    return Rows([str(index) for index in range(number)], np.zeros((number, 1, 1, 3), np.uint8), texts)


@pytest.fixture(scope="module")
def family() -> PromptUpsamplerFamily:
    torch.manual_seed(0)
    family = SMALL.build(rows_of(0, 200), rows_of(5000, 20), {})
    assert isinstance(family, PromptUpsamplerFamily)
    training = TrainingConfig(num_steps=60, batch_size=32, learning_rate=5e-3, precision="fp32", num_warmup_steps=5)
    for _ in Trainer(family, training).run():
        pass
    family.t5.eval()
    return family


@pytest.fixture(scope="module")
def folder(family: PromptUpsamplerFamily, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upsampler")
    family.save(path)
    return path


def test_training_teaches_the_form_of_descriptive_captions(family: PromptUpsamplerFamily) -> None:
    written = PromptUpsampler(family.t5, family.tokenizer)(["large red circle", "small blue star"], batch_size=1)
    assert all(text.endswith("background") and ", on a " in text for text in written)


def test_the_loss_of_one_batch_falls_and_labels_leave_padding_out() -> None:
    torch.manual_seed(1)
    family = SMALL.build(rows_of(0, 16), rows_of(16, 4), {})
    rng = SeededRandom(0, 0, np.arange(16))
    batch = family.batch(rng.rows, rng)
    is_padding = batch["labels"] == -100
    assert is_padding.any()
    assert not (batch["labels"][~is_padding] == 0).any()
    (objective,) = family.objectives()
    optimizer = torch.optim.AdamW(objective.parameters(), 5e-3)
    losses = []
    for _ in range(8):
        loss = objective.loss(batch, rng).value
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_prompts_are_drawn_by_their_weights() -> None:
    config = SMALL.model_copy(update={"source_weights": {"dsc": 1.0}})
    family = config.build(rows_of(0, 8), rows_of(8, 8), {})
    rng = SeededRandom(0, 0, np.arange(8))
    batch = family.batch(rng.rows, rng)
    labels = batch["labels"].masked_fill(batch["labels"] == -100, 0)
    assert torch.equal(batch["input_ids"], labels)  # a descriptive prompt is copied


def test_heads_start_at_their_neighbours() -> None:
    torch.manual_seed(0)
    family = SMALL.build(rows_of(0, 50), rows_of(50, 5), {})
    bias = family.t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    for head, offset in enumerate((-1, 1, -2, 2, -3, 3, -4, 4)):
        bucket = T5Attention._relative_position_bucket(torch.tensor([offset]), num_buckets=32, max_distance=128)
        expected = torch.zeros(32)
        expected[bucket] = OFFSET_BIAS
        assert torch.equal(bias[:, head].detach(), expected)


def test_preview_rewrites_held_out_prompts(family: PromptUpsamplerFamily) -> None:
    preview = family.preview()
    assert len(preview.rows) == 8
    assert preview.rows[0]["prompt"] == rows_of(5000, 1).texts["ssc"][0]
    assert set(preview.rows[0]) == {"prompt", "upsampled", "dsc"}
    assert 0 < preview.metrics["held_out_loss"] < 3
    assert 0 <= preview.metrics["kept_words"] <= 1


def test_a_saved_upsampler_writes_the_same_and_names_no_path(
    family: PromptUpsamplerFamily, folder: Path, tmp_path: Path
) -> None:
    prompts = ["large red circle", "small blue star", DESCRIPTIVE]
    assert load_upsampler(folder)(prompts) == PromptUpsampler(family.t5, family.tokenizer)(prompts)
    family.save(tmp_path)
    for file in folder.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()
        assert str(folder) not in file.read_bytes().decode("latin-1")


def test_the_length_holds_every_descriptive_caption(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    longest = max(len(tokenizer(text).input_ids) for text in rows_of(0, 200).texts["dsc"] if text)
    assert longest <= tokenizer.model_max_length < longest + 8


def test_the_extracted_encoder_is_the_upsamplers_and_ignores_padding(
    family: PromptUpsamplerFamily, folder: Path, tmp_path: Path
) -> None:
    extract_text_encoder(folder, tmp_path / "encoder")
    encoder = T5EncoderModel.from_pretrained(tmp_path / "encoder").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "encoder")
    assert encoder.config.use_attention_mask is True  # StableDiffusionPipeline asks for it
    short = tokenizer([DESCRIPTIVE], return_tensors="pt")
    padded = tokenizer([DESCRIPTIVE], padding="max_length", max_length=40, return_tensors="pt")
    with torch.no_grad():
        expected = family.t5.encoder(**short)[0]
        got = encoder(**padded)[0][:, : expected.shape[1]]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_the_encoder_of_a_hub_t5_is_kept_untrained(tmp_path: Path) -> None:
    hub = save_t5(tmp_path / "hub", [DESCRIPTIVE])
    config = PromptUpsamplerConfig(pretrained=str(tmp_path / "hub"), max_length=20)
    family = config.build(rows_of(0, 4), rows_of(4, 4), {})
    assert isinstance(family, FrozenTextEncoder)
    list(Trainer(family, TrainingConfig(num_steps=0, batch_size=4, learning_rate=1e-3)).run())
    family.save(tmp_path / "saved")
    assert family.preview().metrics["parameters"] > 0
    extract_text_encoder(tmp_path / "saved", tmp_path / "encoder")
    kept = T5EncoderModel.from_pretrained(tmp_path / "encoder").state_dict()
    assert all(
        torch.equal(value, kept[name]) for name, value in hub.state_dict().items() if name.startswith("encoder.")
    )
    assert AutoTokenizer.from_pretrained(tmp_path / "encoder").model_max_length == 20
    with pytest.raises(ValueError, match="trained without pretrained"):
        load_upsampler(tmp_path / "saved")
    with pytest.raises(ValueError, match="num_steps to 0"):
        family.batch(np.arange(4), SeededRandom(0, 0, np.arange(4)))


def test_rows_without_descriptive_captions_are_refused() -> None:
    rows = rows_of(0, 4)
    texts = {"caption": rows.texts["caption"], "ssc": rows.texts["ssc"], "dsc": [None] * 4}
    with pytest.raises(ValueError, match="recaption the data set"):
        SMALL.build(Rows(rows.keys, rows.pixels, texts), rows, {})
