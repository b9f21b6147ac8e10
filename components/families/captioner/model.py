"""A captioner with its tokenizer and picture normalisation: built, loaded and saved as one folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)

from components.data.pixel_values import PixelNormalization, normalization_of
from components.data.tokenization import train_tokenizer

from .config import CaptionerConfig
from .modeling_captioner import ConvTower, ConvTowerCaptioner, ConvTowerCaptionerConfig, ConvTowerConfig

_NUM_SCALING_ROWS = 512  # pictures that the tower's start is scaled to


@dataclass(frozen=True, slots=True)
class CaptionerParts:
    """A network with what its inputs and outputs must go through."""

    model: Any  # a VisionEncoderDecoderModel; its annotations leave out half of what it is
    tokenizer: Any
    normalization: PixelNormalization

    def save(self, folder: Path) -> None:
        """Write a folder for ``AutoModelForImageTextToText``, ``AutoTokenizer`` and ``AutoImageProcessor``."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.normalization.processor().save_pretrained(folder)


def build_captioner(config: CaptionerConfig, texts: Iterable[str], pixels: np.ndarray) -> CaptionerParts:
    """A new captioner, with a tokenizer trained on ``texts`` and a tower scaled to ``pixels``, uint8 (N, H, H, 3)."""
    resolution = pixels.shape[1]
    tokenizer = train_tokenizer(texts, vocab_size=config.vocab_size, max_length=config.max_length)
    special: dict[str, Any] = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    decoder: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "n_positions": config.max_length,
        "n_embd": config.decoder_width,
        "n_layer": config.decoder_layers,
        "n_head": config.decoder_heads,
        "n_inner": config.decoder_expansion * config.decoder_width,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "activation_function": "gelu",
        "initializer_range": 0.06,  # GPT-2's 0.02 suits a width of 768; so narrow a decoder starts too quietly with it
        "is_decoder": True,
        "add_cross_attention": True,
        **{name: token for name, token in special.items() if name != "pad_token_id"},  # padding comes last, unseen
    }
    tower = ConvTowerConfig(
        image_size=resolution,
        widths=list(config.tower_widths),
        strides=list(config.tower_strides),
    )
    start = tokenizer.bos_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        settings = ConvTowerCaptionerConfig(encoder=tower, decoder=GPT2Config(**decoder))
        settings.update({"decoder_start_token_id": start, **special})
        model: Any = ConvTowerCaptioner(settings)
    model.set_attn_implementation("eager")
    model.generation_config = GenerationConfig(
        max_length=config.max_length, decoder_start_token_id=start, num_beams=1, do_sample=False, **special
    )
    normalization = PixelNormalization(resolution)
    scale_to(model.encoder, normalization(torch.from_numpy(np.array(pixels[:_NUM_SCALING_ROWS]))))
    return CaptionerParts(model, tokenizer, normalization)


@torch.no_grad()
def scale_to(tower: ConvTower, pixel_values: torch.Tensor) -> None:
    """Let every channel of every stage start with mean 0 and deviation 1 (before its ReLU) on these pictures.

    Krähenbühl et al. 2016, section 3.1: a start as good as batch normalisation gives, but the weights of a training do
    not come to depend on how its batches were cut.
    """
    hidden = pixel_values
    for stage in tower.stages:
        drawn = stage(hidden)
        deviation = drawn.std((0, 2, 3)).clamp_min(1e-3)
        weight, bias = stage.state_dict(keep_vars=True).values()
        bias.copy_((bias - drawn.mean((0, 2, 3))) / deviation)
        weight /= deviation[:, None, None, None]
        hidden = stage(hidden).relu()


def load_parts(source: str | Path) -> CaptionerParts:
    """A captioner of ours, or any stock VisionEncoderDecoderModel, from a folder or the hub, in float32.

    No code of a folder is run. Raises ValueError for any other model: ``families.hub_captioner`` takes those.
    """
    settings, _ = VisionEncoderDecoderConfig.get_config_dict(source)  # as written: no stock class knows the tower
    expected = VisionEncoderDecoderConfig.model_type
    if settings.get("model_type") != expected:
        raise ValueError(
            f"{source} holds a {settings.get('model_type')!r} model, this family trains {expected!r}; use such a "
            "checkpoint, or the family hub_captioner, which is not trained"
        )
    is_ours = settings.get("architectures") == [ConvTowerCaptioner.__name__]
    network = ConvTowerCaptioner if is_ours else VisionEncoderDecoderModel
    model = network.from_pretrained(source, dtype=torch.float32, attn_implementation="eager")
    model.config._name_or_path = ""
    processor = AutoImageProcessor.from_pretrained(source, backend="pil")
    return CaptionerParts(model, AutoTokenizer.from_pretrained(source), normalization_of(processor))
