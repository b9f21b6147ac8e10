from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

from components.serving import _load_pyfunc
from components.tracking import open_tracker

WORDS = ["<pad>", "<s>", "</s>", "a", "red", "blue", "circle", "square"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=8, **special)


def clip_text_settings() -> dict[str, Any]:
    return {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 8,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def image_processor() -> Any:
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})


@pytest.fixture
def clip(tmp_path: Path, tokenizer: Any) -> Path:
    from transformers import CLIPConfig, CLIPModel

    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 8}
    folder = tmp_path / "lake" / "clip" / "0a1b"
    CLIPModel(CLIPConfig(text_config=clip_text_settings(), vision_config=vision, projection_dim=8)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)
    return folder


@pytest.fixture
def pipeline(tmp_path: Path, tokenizer: Any) -> Path:
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    made = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
            up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
            norm_num_groups=4,
            sample_size=16,
        ),
        text_encoder=CLIPTextModel(CLIPTextConfig(**clip_text_settings())),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path / "lake" / "latent_diffusion" / "2c3d"
    made.save_pretrained(folder)
    return folder


def png(colour: tuple[int, int, int]) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(data, format="PNG")
    return data.getvalue()


@pytest.fixture
def champion(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], Any]:
    """Registers a folder as champion and opens it the way that any MLflow user does."""

    def load(name: str, folder: Path) -> Any:
        import mlflow.pyfunc

        uri = f"sqlite:///{database}"
        tracker = open_tracker(uri, str(tmp_path / "artifacts"), experiment=name)
        tracker.set_alias(tracker.register(name, str(folder), run=None, tags={}, parents=[]), "champion")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        return mlflow.pyfunc.load_model(f"models:/{name}@champion")

    return load


def pointer(folder: Path, tmp_path: Path) -> str:
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"uri": str(folder)}))
    return str(path)


def test_a_champion_clip_embeds_pictures_and_texts(
    champion: Callable[[str, Path], Any], clip: Path, tmp_path: Path
) -> None:
    model = champion("tiny-clip", clip)
    picture = png((255, 0, 0))
    rows = pd.DataFrame(
        {"text": ["a red circle", "a blue square"], "image": [picture, base64.b64encode(picture).decode()]}
    )
    vectors = model.predict(rows)
    assert list(vectors.columns) == ["text_embeds", "image_embeds"]
    lengths = [sum(value * value for value in vector) for column in vectors for vector in vectors[column]]
    assert lengths == pytest.approx([1.0] * 4, abs=1e-5)
    assert vectors["image_embeds"][0] == pytest.approx(vectors["image_embeds"][1], abs=1e-6)
    assert vectors["text_embeds"][0] != pytest.approx(vectors["text_embeds"][1], abs=1e-6)
    kept = sum(path.stat().st_size for path in (tmp_path / "artifacts").rglob("*") if path.is_file())
    assert 0 < kept < 10_000 < (clip / "model.safetensors").stat().st_size


def test_a_champion_pipeline_draws_each_prompt_from_its_seed(
    champion: Callable[[str, Path], Any], pipeline: Path
) -> None:
    model = champion("tiny-diffusion", pipeline)

    def draw(prompts: list[str], params: Mapping[str, Any]) -> list[Image.Image]:
        images = model.predict(pd.DataFrame({"prompt": prompts}), params=params)["image"]
        return [Image.open(io.BytesIO(base64.b64decode(image))) for image in images]

    steps = {"num_inference_steps": 2, "guidance_scale": 1.5}
    first, other = draw(["a red circle", "a blue square"], {**steps, "seed": 7})
    [alone] = draw(["a blue square"], {**steps, "seed": 7})
    [reseeded] = draw(["a blue square"], {**steps, "seed": 8})
    assert first.format == "PNG"
    assert first.size == other.size == (16, 16)
    assert largest_difference(other, alone) <= 1
    assert largest_difference(other, reseeded) > 1


def largest_difference(one: Image.Image, other: Image.Image) -> int:
    pairs = zip(one.tobytes(), other.tobytes(), strict=True)
    return max(abs(left - right) for left, right in pairs)


def test_a_captioner_writes_a_caption_for_each_picture(tmp_path: Path, tokenizer: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, VisionEncoderDecoderModel, ViTConfig, ViTModel

    layers = {"num_hidden_layers": 1, "num_attention_heads": 2}
    vision = ViTModel(ViTConfig(hidden_size=16, intermediate_size=16, image_size=16, patch_size=8, **layers))
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    writer = GPT2Config(
        vocab_size=len(WORDS), n_positions=8, n_embd=16, n_layer=1, n_head=2, add_cross_attention=True, **special
    )
    model = VisionEncoderDecoderModel(encoder=vision, decoder=GPT2LMHeadModel(writer))
    model.generation_config.update(decoder_start_token_id=1, max_length=5, **special)
    folder = tmp_path / "captioner"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)

    served = _load_pyfunc(pointer(folder, tmp_path))
    captions = served.predict(pd.DataFrame({"image": [png((0, 0, colour)) for colour in range(18)]}))["caption"]
    assert len(captions) == 18
    assert {word for caption in captions for word in caption.split()} <= set(WORDS)


def test_an_upsampler_rewrites_prompts(tmp_path: Path, tokenizer: Any) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    folder = tmp_path / "upsampler"
    config = T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    served = _load_pyfunc(pointer(folder, tmp_path))
    written = served.predict(pd.DataFrame({"prompt": ["a circle", "a square", "a circle"]}))["caption"]
    assert written[0] == written[2]
    assert {word for caption in written for word in caption.split()} <= set(WORDS)


def test_a_folder_that_serves_no_rows_says_what_to_do_with_it(pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"AutoencoderKL.*pass it to a pipeline as vae=diffusers\.AutoencoderKL"):
        _load_pyfunc(pointer(pipeline / "vae", tmp_path))


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone holds no model"):
        _load_pyfunc(pointer(tmp_path / "gone", tmp_path))


def test_a_missing_column_is_named(clip: Path, tmp_path: Path) -> None:
    served = _load_pyfunc(pointer(clip, tmp_path))
    with pytest.raises(ValueError, match="needs a column 'text'; its columns are 'caption'"):
        served.predict(pd.DataFrame({"caption": ["a red circle"]}))
    assert not torch.is_inference_mode_enabled()
