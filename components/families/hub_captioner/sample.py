"""Captions of a stock image-text-to-text model: its prompt, its generation, its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from .config import HubCaptionerConfig


class HubCaptioner:
    """Greedy (or beam) captions of a stock model (:class:`components.contracts.Captioner`)."""

    def __init__(self, model: Any, processor: Any, config: HubCaptionerConfig) -> None:
        self.model = model
        self.processor = processor
        self.prompt = config.prompt
        self.config = config
        self.is_chat = bool(config.prompt) and getattr(processor, "chat_template", None) is not None
        if hasattr(processor, "tokenizer"):
            processor.tokenizer.padding_side = "left"  # an answer follows its prompt without a gap

    def caption(self, pixels: np.ndarray, keys: Sequence[str]) -> list[str]:
        """Captions for uint8 (B, H, W, 3), on one line each, without the prompt."""
        captions: list[str] = []
        for start in range(0, len(pixels), self.config.batch_size):
            pictures = [self._picture(one) for one in pixels[start : start + self.config.batch_size]]
            captions += self._answers(self._inputs(pictures))
        return captions

    def _picture(self, pixels: np.ndarray) -> Image.Image:
        picture = Image.fromarray(pixels)
        scale = self.config.min_side / min(picture.size)
        if scale <= 1:
            return picture
        size = round(picture.width * scale), round(picture.height * scale)
        return picture.resize(size, Image.Resampling.BICUBIC)

    def _inputs(self, pictures: list[Image.Image]) -> Any:
        if self.is_chat:
            chats = [
                [{"role": "user", "content": [{"type": "image", "image": one}, {"type": "text", "text": self.prompt}]}]
                for one in pictures
            ]
            return self.processor.apply_chat_template(
                chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", padding=True
            )
        if not self.prompt:
            return self.processor(images=pictures, return_tensors="pt")
        return self.processor(images=pictures, text=[self.prompt] * len(pictures), return_tensors="pt", padding=True)

    def _answers(self, inputs: Any) -> list[str]:
        moved = inputs.to(self.model.device, self.model.dtype)
        with torch.inference_mode():
            tokens = self.model.generate(
                **moved, max_new_tokens=self.config.max_new_tokens, num_beams=self.config.num_beams, do_sample=False
            )
        asked = moved.get("input_ids")
        if asked is not None and torch.equal(tokens[:, : asked.shape[1]], asked):
            tokens = tokens[:, asked.shape[1] :]  # a decoder-only model gives its prompt back
        answers = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(_without(self.prompt, answer).split()) for answer in answers]


def _without(prompt: str, answer: str) -> str:
    """The answer alone, where a model with a decoder of its own (BLIP) says its prompt first."""
    said = " ".join(answer.split())
    asked = " ".join(prompt.split())
    return said[len(asked) :] if asked and said.lower().startswith(asked.lower()) else said
