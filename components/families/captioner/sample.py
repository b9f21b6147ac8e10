"""What a trained captioner does: one caption for each picture, greedy or sampled with a seed for each key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from components.contracts import Captioner
from components.execution.device import fast_dtype

from .model import CaptionerParts, load_parts


class GeneratingCaptioner:
    """Captions by stock ``generate()`` with a key-value cache (:class:`components.contracts.Captioner`).

    ``temperature`` 0 takes the likeliest token; above 0 a token is drawn, from the stream of (``seed``, key), whatever
    the batch.
    """

    def __init__(self, parts: CaptionerParts, *, temperature: float = 0.0, seed: int = 0) -> None:
        if temperature < 0:
            raise ValueError(f"temperature={temperature}: 0 for the likeliest token, more to sample")
        self.parts = parts
        self.temperature = temperature
        self.seed = seed

    def caption(self, pixels: np.ndarray, keys: Sequence[str]) -> list[str]:
        """Captions for uint8 (B, H, W, 3), one generation for the whole batch."""
        model, tokenizer = self.parts.model, self.parts.tokenizer
        batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(model.device)
        drawing = LogitsProcessorList()
        if self.temperature:
            drawing.append(GumbelNoise([f"{self.seed}/{key}" for key in keys], self.temperature))
        with torch.inference_mode():
            pixel_values = self.parts.normalization(batch).to(model.dtype)
            tokens = model.generate(pixel_values=pixel_values, logits_processor=drawing)
        return [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]


class GumbelNoise(LogitsProcessor):
    """Makes a greedy search draw from softmax(logits / temperature), each row from a stream of its own.

    The largest of logits plus Gumbel noise is such a draw (Maddison et al. 2014, section 2).
    """

    def __init__(self, streams: Sequence[str], temperature: float) -> None:
        digests = [hashlib.blake2b(stream.encode(), digest_size=8).digest() for stream in streams]
        seeds = [int.from_bytes(digest, "little") >> 1 for digest in digests]
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> Any:
        """Scores (B, V) with noise."""
        drawn = torch.stack([torch.rand(scores.shape[1], generator=generator) for generator in self.generators])
        noise = -torch.log(-torch.log(drawn.clamp(1e-20, 1 - 1e-7)))
        return scores / self.temperature + noise.to(scores.device)


def load_captioner(
    folder: str | Path, device: torch.device | str = "cpu", *, temperature: float = 0.0, seed: int = 0
) -> Captioner:
    """The captioner of a model folder, in bfloat16 where the device computes in it, else in float32."""
    parts = load_parts(folder)
    parts.model.to(torch.device(device), fast_dtype(device)).eval().requires_grad_(False)
    return GeneratingCaptioner(parts, temperature=temperature, seed=seed)
