"""Rows of the lake as memory-mapped files on the local disk: decoded once, then read in any order by every training.

What belongs here: the files, made in bounded memory (a row group at a time) and whole or not at all. What does not:
which rows a training takes of them (``components.pipeline.rows``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock

from .lake import Lake, Record, digest_of
from .pixels import Fit, decode_pixels
from .storage import named_failures


class Scratch:
    """Files made from immutable parts of a lake, named by what they are made of, under one local folder."""

    def __init__(self, lake: Lake, folder: Path) -> None:
        self.lake, self.folder = lake, folder

    def texts(self, parts: Sequence[Record], columns: Sequence[str]) -> pa.Table:
        """Columns of texts of all rows of tables' parts, in the parts' order; the table is memory-mapped."""

        def fill(file: Path) -> None:
            schema = pa.schema([(name, pa.large_string()) for name in columns])
            with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                for batch in self._batches(parts, columns):
                    writer.write_batch(batch.select(columns).cast(schema))

        name = digest_of([[part.data_version for part in parts], list(columns)])
        file = self.made_once(f"texts/{name}.arrow", fill)
        return pa.ipc.open_file(pa.memory_map(str(file))).read_all()

    def pixels(self, parts: Sequence[Record], resolution: int, fit: Fit) -> np.ndarray:
        """Pictures of all rows of raw_pairs' parts: uint8 (N, resolution, resolution, 3)."""
        pictures = (
            decode_pixels(image.as_py(), resolution, fit)
            for batch in self._batches(parts, ["image"])
            for image in batch["image"]
        )
        name = digest_of([[part.data_version for part in parts], resolution, fit])
        return self.array(
            f"pixels/{name}.npy", (num_rows_of(parts), resolution, resolution, 3), np.dtype(np.uint8), pictures
        )

    def latents(self, parts: Sequence[Record]) -> np.ndarray:
        """Latents of all rows of latents' parts: float16 (N, C, h, w)."""
        shape = tuple(parts[0].metadata["shape"])

        def blocks() -> Iterator[np.ndarray]:
            for batch in self._batches(parts, ["latents"]):
                flat = batch["latents"].flatten().to_numpy(zero_copy_only=False)
                yield from flat.reshape(batch.num_rows, *shape)

        name = digest_of([part.data_version for part in parts])
        return self.array(f"latents/{name}.npy", (num_rows_of(parts), *shape), np.dtype(np.float16), blocks())

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype, rows: Iterable[np.ndarray]) -> np.ndarray:
        """A memory-mapped array, filled from ``rows`` (one entry each) unless it is there already."""

        def fill(file: Path) -> None:
            mapped = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
            _reserve(file)
            number = -1
            for number, row in enumerate(rows):
                mapped[number] = row
            if number + 1 != shape[0]:
                raise ValueError(f"{name}: {number + 1} rows came for an array of {shape[0]}")
            mapped.flush()

        return np.load(self.made_once(name, fill), mmap_mode="r")

    def made_once(self, name: str, fill: Callable[[Path], None]) -> Path:
        """The file, filled by the first of several workers that ask for it; the others wait."""
        file = self.folder / name
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{file}.lock"):
                if not file.exists():
                    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
                    try:
                        with named_failures(str(file), "written", OSError):
                            fill(partial)
                        partial.replace(file)
                    finally:
                        partial.unlink(missing_ok=True)
        return file

    def _batches(self, parts: Sequence[Record], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for part in parts:
            yield from self.lake.batches(part.path, columns)


def _reserve(file: Path) -> None:
    """Take a file's place on the disk now: where that is full, a page written through a map would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as mapped:
            os.posix_fallocate(mapped.fileno(), 0, file.stat().st_size)


def num_rows_of(parts: Sequence[Record]) -> int:
    """Rows of all parts together."""
    return sum(part.num_rows or 0 for part in parts)
