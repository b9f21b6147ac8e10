"""Archives of several compressed streams are read to their end, wherever the streams are cut."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable

import numpy as np
import pytest

from components.data import unpacking
from components.data.unpacking import Unpacked

NOISE = np.random.default_rng(0).bytes(3000)
PACKERS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("padding", [0, 4, 10_000])
@pytest.mark.parametrize("shift", range(-2, 3))
@pytest.mark.parametrize("name", PACKERS)
def test_a_stream_that_ends_with_a_chunk_does_not_lose_the_next(
    name: str, shift: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = PACKERS[name]
    first = pack(NOISE)
    monkeypatch.setattr(unpacking, "_CHUNK", len(first) + shift)
    stream = Unpacked(io.BytesIO(first + bytes(padding) + pack(b"the rest") + pack(b", and more")))
    assert stream.read(10_000) == NOISE + b"the rest, and more"
    assert stream.read(10_000) == b""
