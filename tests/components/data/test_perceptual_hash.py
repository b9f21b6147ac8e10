"""Near copies hash alike, other pictures do not."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from components.data.perceptual_hash import (
    FLAT,
    distances,
    hash_text,
    parse_hash,
    perceptual_hash,
)


def picture(seed: int, side: int = 96) -> Image.Image:
    """Random colours at all scales, the coarse ones strongest, as in photographs."""
    rng = np.random.default_rng(seed)
    values = np.zeros((side, side, 3))
    for cells in (3, 6, 12, 24, 48):
        rough = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        values += np.asarray(rough.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64) / cells
    values = (values - values.min()) / (values.max() - values.min())
    return Image.fromarray((255 * values).astype(np.uint8))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=quality)
    return Image.open(io.BytesIO(sink.getvalue()))


def distance(one: Image.Image, other: Image.Image) -> int:
    return int(distances(np.array([perceptual_hash(one)], dtype=np.uint64), perceptual_hash(other))[0])


@pytest.mark.parametrize("seed", range(5))
def test_near_copies_differ_in_few_bits(seed: int) -> None:
    original = picture(seed)
    for copy in (
        jpeg(original, 40),
        original.resize((48, 48)),
        original.resize((200, 150)),
        ImageEnhance.Brightness(original).enhance(0.9),
        original.convert("L"),
    ):
        assert distance(original, copy) <= 6


def test_other_pictures_differ_in_about_half_of_the_bits() -> None:
    hashes = np.array([perceptual_hash(picture(seed)) for seed in range(60)], dtype=np.uint64)
    pairs = np.concatenate([distances(hashes[i + 1 :], int(hashes[i])) for i in range(60)])
    assert pairs.min() > 10
    assert abs(pairs.mean() - 32) < 2


def test_flat_pictures_are_near_to_nothing() -> None:
    white, grey = Image.new("RGB", (40, 40), "white"), Image.new("RGB", (40, 40), (127, 127, 128))
    assert perceptual_hash(white) == perceptual_hash(grey) == FLAT
    assert distance(white, grey) == distance(white, picture(0)) == 64


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
@settings(max_examples=200, deadline=None)
def test_distances_count_bits_and_texts_go_back(one: int, other: int) -> None:
    if FLAT not in (one, other):
        assert distances(np.array([one], dtype=np.uint64), other)[0] == (one ^ other).bit_count()
    assert parse_hash(hash_text(one)) == one


@pytest.mark.parametrize("text", ["", "12", "g" * 16, "0" * 17, " 0123456789abcde"])
def test_other_texts_are_no_hashes(text: str) -> None:
    with pytest.raises(ValueError, match="16 hexadecimal digits"):
        parse_hash(text)
