"""Stored pictures as pixel arrays of one size, decoded once and then memory-mapped by every training.

What belongs here: fitting a picture into a square and the cache of decoded pixels. What does not: deciding whether a
picture is acceptable (``components.data.images``) and augmentation (a family's business).
"""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from .lake import Lake, Record, digest_of

Fit = Literal["pad", "crop", "stretch"]


def decode_pixels(image: bytes, resolution: int, fit: Fit = "pad") -> np.ndarray:
    """A stored picture (RGB PNG or JPEG) as uint8 (resolution, resolution, 3).

    ``pad`` keeps all of it on white, ``crop`` keeps the centre square, ``stretch`` ignores the aspect.
    """
    with Image.open(io.BytesIO(image)) as opened:
        picture = opened.convert("RGB")
    if picture.size != (resolution, resolution):
        picture = _fitted(picture, resolution, fit)
    return np.asarray(picture, dtype=np.uint8)


def _fitted(picture: Image.Image, resolution: int, fit: Fit) -> Image.Image:
    width, height = picture.size
    if fit == "stretch":
        return picture.resize((resolution, resolution), Image.Resampling.LANCZOS)
    side = max(width, height) if fit == "pad" else min(width, height)
    scale = resolution / side
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = picture.resize(size, Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (resolution, resolution), "white")
    canvas.paste(resized, ((resolution - size[0]) // 2, (resolution - size[1]) // 2))
    return canvas


class PixelCache:
    """Decoded pictures of a list of raw_pairs parts, kept as one memory-mapped array under a scratch folder."""

    def __init__(self, scratch: Path) -> None:
        self.folder = scratch / "pixels"

    def open(self, lake: Lake, parts: Sequence[Record], resolution: int, fit: Fit) -> tuple[list[str], np.ndarray]:
        """Keys and uint8 pixels (N, resolution, resolution, 3) of all rows, in the parts' order."""
        name = digest_of([[part.data_version for part in parts], resolution, fit])
        pixels_path, keys_path = self.folder / f"{name}.npy", self.folder / f"{name}.json"
        if not (pixels_path.exists() and keys_path.exists()):
            self._fill(lake, parts, resolution, fit, name)
        return json.loads(keys_path.read_text()), np.load(pixels_path, mmap_mode="r")

    def _fill(self, lake: Lake, parts: Sequence[Record], resolution: int, fit: Fit, name: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{name}.{os.getpid()}.partial"
        shape = (sum(part.num_rows or 0 for part in parts), resolution, resolution, 3)
        pixels = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        keys: list[str] = []
        for part in parts:
            for batch in lake.batches(part.path, ["key", "image"]):
                for key, image in zip(batch["key"].to_pylist(), batch["image"], strict=True):
                    pixels[len(keys)] = decode_pixels(image.as_py(), resolution, fit)
                    keys.append(key)
        pixels.flush()
        del pixels
        keys_partial = partial.with_suffix(".keys")
        keys_partial.write_text(json.dumps(keys))
        keys_partial.replace(self.folder / f"{name}.json")
        partial.replace(self.folder / f"{name}.npy")
