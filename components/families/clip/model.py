"""The stock CLIPModel with its tokenizer and picture normalisation: built, loaded and saved as one folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
)

from components.data.pixel_values import PixelNormalization, normalization_of
from components.data.tokenization import train_tokenizer

from .config import ClipConfig


@dataclass(frozen=True, slots=True)
class ClipParts:
    """A network with what its inputs must go through."""

    model: Any  # a CLIPModel or VisionTextDualEncoderModel; annotations leave out half of what they are
    tokenizer: Any
    normalization: PixelNormalization

    def tokens(self, texts: list[str], *, is_full_length: bool = False) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask``, int64 (B, L), of texts cut to the encoder's length.

        L is the longest text's length, or always the encoder's.
        """
        padding = "max_length" if is_full_length else "longest"
        encoded = self.tokenizer(texts, padding=padding, truncation=True, return_tensors="pt")
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Unit embeddings (B, D), float32, of uint8 (B, H, W, 3) on the model's device."""
        features = self.model.get_image_features(
            pixel_values=self.normalization(pixels).to(self.model.dtype)
        ).pooler_output
        return torch.nn.functional.normalize(features.float(), dim=-1)

    def embed_tokens(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Unit embeddings (B, D), float32, of tokens on the model's device."""
        features = self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return torch.nn.functional.normalize(features.float(), dim=-1)

    def save(self, folder: Path) -> None:
        """Write a folder for ``AutoModel``, ``AutoTokenizer`` and ``CLIPProcessor``."""
        self.model.save_pretrained(folder)
        CLIPProcessor(self.normalization.processor(), self.tokenizer).save_pretrained(folder)


def build_clip(config: ClipConfig, texts: Iterable[str], resolution: int) -> ClipParts:
    """``config.pretrained``, or a new network with a tokenizer trained on ``texts``.

    ``resolution``: side of the pictures. Raises ValueError where patches do not tile a picture.
    """
    if config.pretrained:
        return load_parts(config.pretrained)
    if resolution % config.patch_size:
        raise ValueError(f"patch_size {config.patch_size} does not divide the pictures' side of {resolution} pixels")
    tokenizer = train_tokenizer(texts, vocab_size=config.vocab_size, max_length=config.max_length)
    shape = CLIPConfig(
        projection_dim=config.projection_dim,
        text_config={
            "vocab_size": len(tokenizer),
            "max_position_embeddings": config.max_length,
            "hidden_size": config.text_width,
            "intermediate_size": 4 * config.text_width,
            "num_hidden_layers": config.text_layers,
            "num_attention_heads": config.text_heads,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,  # where the text is pooled
        },
        vision_config={
            "image_size": resolution,
            "patch_size": config.patch_size,
            "hidden_size": config.vision_width,
            "intermediate_size": 4 * config.vision_width,
            "num_hidden_layers": config.vision_layers,
            "num_attention_heads": config.vision_heads,
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = CLIPModel(shape)
    model.set_attn_implementation("eager")
    return ClipParts(model, tokenizer, PixelNormalization(resolution))


def load_parts(source: str | Path) -> ClipParts:
    """A CLIPModel or VisionTextDualEncoderModel from a folder or the hub, in float32."""
    model = AutoModel.from_pretrained(source, dtype=torch.float32, attn_implementation="eager")
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise ValueError(f"{source} holds a {type(model).__name__}, which embeds no pictures and texts; give a CLIP")
    processor = AutoImageProcessor.from_pretrained(source, backend="pil")
    model.config._name_or_path = ""
    return ClipParts(model, AutoTokenizer.from_pretrained(source), normalization_of(processor))
