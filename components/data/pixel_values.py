"""Stored pixels as a vision tower reads them: shifted a little in training, resized, normalised.

What belongs here: the step from uint8 pixels to ``pixel_values`` and its stock ``preprocessor_config.json``. What does
not: decoding (``components.data.pixels``) and towers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from transformers import CLIPImageProcessorPil

HALF = (0.5, 0.5, 0.5)  # as mean and deviation: pixels from -1 to 1


@dataclass(frozen=True, slots=True)
class PixelNormalization:
    """Side in pixels, mean and standard deviation (of values in [0, 1]) that a vision tower expects."""

    resolution: int
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (B, H, W, 3) as float32 (B, 3, resolution, resolution), on the same device."""
        from torch.nn.functional import interpolate

        values = pixels.permute(0, 3, 1, 2).float() / 255
        if values.shape[-2:] != (self.resolution, self.resolution):
            side = (self.resolution, self.resolution)
            values = interpolate(values, side, mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (values.new_tensor(channel)[:, None, None] for channel in (self.mean, self.std))
        return (values - mean) / std

    def processor(self) -> CLIPImageProcessorPil:
        """The stock image processor that does the same from Pillow pictures (and also crops the middle square)."""
        from transformers import CLIPImageProcessorPil

        return CLIPImageProcessorPil(
            size={"shortest_edge": self.resolution},
            crop_size={"height": self.resolution, "width": self.resolution},
            image_mean=list(self.mean),
            image_std=list(self.std),
        )


def normalization_of(processor: Any) -> PixelNormalization:
    """What a stock image processor does to a square picture; ValueError where it makes no square of it."""
    is_cropped = bool(getattr(processor, "do_center_crop", False)) and processor.crop_size
    size = dict(processor.crop_size if is_cropped else processor.size)
    sides = set(size.values())
    if len(sides) != 1 or not set(size) <= {"height", "width", "shortest_edge"}:
        raise ValueError(f"{type(processor).__name__} resizes to {size}; a checkpoint with square pictures is needed")
    if not getattr(processor, "do_normalize", True):
        return PixelNormalization(sides.pop(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return PixelNormalization(sides.pop(), tuple(processor.image_mean), tuple(processor.image_std))


def shifted(pixels: np.ndarray, draws: np.ndarray, max_shift: int) -> np.ndarray:
    """Each picture of (B, H, W, C) moved by up to ``max_shift`` pixels either way; its border is repeated.

    ``draws``: uniform in [0, 1), (B, 2), for the vertical and the horizontal move.
    """
    if not max_shift:
        return pixels
    moves = np.floor(draws * (2 * max_shift + 1)).astype(np.int64) - max_shift
    rows = np.clip(np.arange(pixels.shape[1]) + moves[:, :1], 0, pixels.shape[1] - 1)  # (B, H)
    columns = np.clip(np.arange(pixels.shape[2]) + moves[:, 1:], 0, pixels.shape[2] - 1)  # (B, W)
    return pixels[np.arange(len(pixels))[:, None, None], rows[:, :, None], columns[:, None, :]]
