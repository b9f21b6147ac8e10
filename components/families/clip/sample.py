"""What a trained CLIP does: embeds pictures and texts, and scores one against the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .model import ClipParts, load_parts

_BATCH = 256
_MULTIPLE = 32  # batches are filled up to it: the rounding of a matrix product depends on the shapes of small ones


class ClipScorer:
    """A CLIP ready to score: unit embeddings, and cosines x 100 as in the DALL-E 3 report."""

    def __init__(self, parts: ClipParts) -> None:
        self.parts = parts
        self.device = parts.model.device

    def image_embeds(self, pixels: np.ndarray) -> np.ndarray:
        """Float32 (N, D), unit length, of uint8 (N, H, W, 3)."""
        pieces = []
        with torch.no_grad():
            for start in range(0, len(pixels), _BATCH):
                batch = torch.from_numpy(np.array(pixels[start : start + _BATCH])).to(self.device)
                pieces.append(self.parts.embed_images(batch).cpu().numpy())
        return np.concatenate(pieces)

    def text_embeds(self, texts: Sequence[str]) -> np.ndarray:
        """Float32 (N, D), unit length; a text longer than the encoder takes is cut off, and each text is read once.

        What a text is embedded as does not depend on the texts beside it, as far as the device's arithmetic allows.
        """
        distinct = list(dict.fromkeys(texts))
        pieces = []
        with torch.no_grad():
            for start in range(0, len(distinct), _BATCH):
                batch = distinct[start : start + _BATCH]
                filled = [*batch, *[batch[0]] * (-len(batch) % _MULTIPLE)]
                tokens = self.parts.tokens(filled, is_full_length=True)
                moved = {name: values.to(self.device) for name, values in tokens.items()}
                pieces.append(self.parts.embed_tokens(**moved).cpu().numpy()[: len(batch)])
        place = {text: number for number, text in enumerate(distinct)}
        return np.concatenate(pieces)[[place[text] for text in texts]]

    def score(self, pixels: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Cosine x 100 of each picture with its own text, float32 (N,)."""
        return 100 * (self.image_embeds(pixels) * self.text_embeds(texts)).sum(axis=1)


def load_clip(
    folder: str | Path, device: torch.device | str = "cpu", *, dtype: torch.dtype = torch.float32
) -> ClipScorer:
    """The scorer of a model folder (or hub id); in bfloat16 cosines are right to about half a point of a hundred."""
    parts = load_parts(folder)
    parts.model.set_attn_implementation("sdpa")  # slow on a CPU only on the way back
    parts.model.to(torch.device(device), dtype).eval().requires_grad_(False)
    return ClipScorer(parts)
