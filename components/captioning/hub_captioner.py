"""Any Hugging Face image-text-to-text checkpoint as a captioner: by path or hub id, with one prompt for each kind.

What belongs here: driving a stock model and processor. What does not: our own captioners (``families.captioner``) and
any training. No code that comes with a checkpoint is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from transformers import AutoModelForImageTextToText, AutoProcessor

from components.contracts import Frozen

PROMPTS: Mapping[str, str] = {
    "ssc": "Name only the main subject of this picture, in a few words and without any preamble.",
    "dsc": "Describe this picture in one detailed sentence: subject, surroundings, background, written words, style "
    "and colours. Do not begin with 'the image'.",
}


class HubCaptionerConfig(Frozen):
    """A checkpoint, what it is asked, and how it answers."""

    checkpoint: str = Field(description="Folder or hub id of an image-text-to-text model with its processor.")
    prompts: Mapping[str, str] = Field(
        default_factory=lambda: dict(PROMPTS),
        description="What the model is asked, by kind of caption; empty for models that take no prompt.",
    )
    max_new_tokens: int = Field(default=96, description="Longest answer in tokens.", gt=0)
    num_beams: int = Field(default=1, description="Width of the beam search; 1 is greedy.", gt=0)
    batch_size: int = Field(default=32, description="Pictures in one generation.", gt=0)
    min_side: int = Field(
        default=224, description="Smaller pictures are enlarged to this side before the processor.", gt=0
    )


class HubCaptioner:
    """Greedy (or beam) captions of a stock model (:class:`components.contracts.Captioner`)."""

    def __init__(self, model: Any, processor: Any, prompt: str, config: HubCaptionerConfig) -> None:
        self.model = model
        self.processor = processor
        self.prompt = prompt
        self.config = config
        self.is_chat = bool(prompt) and getattr(processor, "chat_template", None) is not None
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


def load_hub_captioner(config: HubCaptionerConfig, kind: str, device: torch.device | str = "cpu") -> HubCaptioner:
    """A captioner for captions of ``kind`` from a checkpoint, in the type in which its weights are stored.

    Raises ValueError where ``config.prompts`` has nothing for the kind or the checkpoint takes no pictures.
    """
    if kind not in config.prompts:
        raise ValueError(f"no prompt for captions of kind {kind!r}; prompts has {', '.join(sorted(config.prompts))}")
    model: Any = AutoModelForImageTextToText.from_pretrained(config.checkpoint, dtype="auto")
    processor: Any = AutoProcessor.from_pretrained(config.checkpoint, backend="pil")
    if not hasattr(processor, "image_processor"):
        where = Path(config.checkpoint)
        raise ValueError(f"{where} has a {type(processor).__name__}, which takes no pictures; save the processor there")
    model.to(torch.device(device)).eval().requires_grad_(False)
    return HubCaptioner(model, processor, config.prompts[kind], config)


def _without(prompt: str, answer: str) -> str:
    """The answer alone, where a model with a decoder of its own (BLIP) says its prompt first."""
    said = " ".join(answer.split())
    asked = " ".join(prompt.split())
    return said[len(asked) :] if asked and said.lower().startswith(asked.lower()) else said
