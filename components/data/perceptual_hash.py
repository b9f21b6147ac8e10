"""A 64-bit perceptual hash of pictures: near copies have hashes that differ in few bits.

What belongs here: the hash, and distances between hashes. What does not: what is done about near copies; the checks of
ingestion (near duplicates) and the opt-out list (``components.data.opt_outs``) both use it.

The hash is that of the pHash library (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010,
section 3.2.1): the picture as 32 x 32 greys, its two-dimensional DCT-II, and of the 8 x 8 lowest frequencies without
the constant row and column one bit each: whether the coefficient lies above their median. Scaling, recompression and
small changes of brightness or colour flip a few bits; unrelated pictures differ in about 32. Colour does not count, and
pictures with little structure (icons on white, drawings of one shape) lie closer together than photographs do. A
picture of one flat colour has no structure to hash: its hash is ``FLAT``, which is near to no other picture.
"""

import numpy as np
from PIL import Image
from scipy.fft import dctn

SIDE = 32  # of the greys that are transformed, in pixels
FREQUENCIES = slice(1, 9)  # of rows and columns; 0 is the constant
FLAT = 0
MIN_COEFFICIENT = 1.0  # below it all frequencies are rounding: less than one grey level over the whole picture


def perceptual_hash(image: Image.Image) -> int:
    """The hash of a picture of any size and mode, in [0, 2**64)."""
    greys = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    spectrum = np.asarray(dctn(np.asarray(greys, dtype=np.float64), norm="ortho"))[FREQUENCIES, FREQUENCIES]
    if np.abs(spectrum).max() < MIN_COEFFICIENT:
        return FLAT
    bits = (spectrum > np.median(spectrum)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes())


def distances(hashes: np.ndarray, other: int) -> np.ndarray:
    """In how many of the 64 bits each of ``hashes`` (uint64, any shape) differs from ``other``, uint8.

    A flat picture is 64 away from everything, other flat pictures included: nothing is known about it.
    """
    found = np.bitwise_count(hashes ^ np.uint64(other)).astype(np.uint8)
    return np.where((hashes == FLAT) | (other == FLAT), np.uint8(64), found)


def hash_text(value: int) -> str:
    """A hash as 16 hexadecimal digits."""
    return f"{value:016x}"


def parse_hash(text: str) -> int:
    """The hash of 16 hexadecimal digits; ValueError for anything else."""
    if len(text) != 16 or not set(text.lower()) <= set("0123456789abcdef"):
        raise ValueError(f"{text!r} is not a perceptual hash: write 16 hexadecimal digits")
    return int(text, 16)
