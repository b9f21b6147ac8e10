"""Stored pictures as pixel arrays of one size.

What belongs here: decoding, and fitting a picture into a square. What does not: deciding whether a picture is
acceptable (``components.data.images``), keeping pixels (``components.data.scratch``) and augmentation (a family's
business).
"""

import io
from typing import Literal

import numpy as np
from PIL import Image

Fit = Literal["pad", "crop", "stretch"]


def decode_pixels(image: bytes, resolution: int, fit: Fit = "pad") -> np.ndarray:
    """A picture's file (in the lake always PNG) as uint8 (resolution, resolution, 3).

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
