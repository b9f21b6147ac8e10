"""Rows are read from memory-mapped files, in any order, without being loaded."""

import io
import multiprocessing
from contextlib import suppress
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from components.data.lake import Lake, Record
from components.data.picked import PickedArray, PickedTexts
from components.data.scratch import Scratch
from components.data.storage import StorageError
from components.schemas import LATENTS, RAW_PAIRS


def png(color: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (8, 8), (color, 0, 0)).save(sink, "PNG")
    return sink.getvalue()


def part(lake: Lake, shard: str, numbers: range) -> Record:
    texts = ("key", "sha256", "source_sha256", "perceptual_hash", "caption", "source", "license")
    columns = {name: [f"{name} {number}" for number in numbers] for name in texts}
    columns |= {"image": [png(number) for number in numbers], "width": [8] * len(numbers), "height": [8] * len(numbers)}
    columns["colours"] = [bytes(48)] * len(numbers)
    path, digest = lake.write_table(f"raw_pairs/{shard}", pa.table(columns), RAW_PAIRS)
    return Record("raw_pairs", "table", "d", "r", "f", digest, path, shard, len(numbers))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def parts(lake: Lake) -> list[Record]:
    return [part(lake, "00000", range(5)), part(lake, "00001", range(5, 8))]


def test_rows_of_all_parts_stand_in_their_order(lake: Lake, parts: list[Record], tmp_path: Path) -> None:
    scratch = Scratch(lake, tmp_path / "scratch")
    texts = scratch.texts(parts, ["key", "caption"])
    assert texts["caption"].to_pylist() == [f"caption {number}" for number in range(8)]
    pixels = scratch.pixels(parts, 8, "pad")
    assert isinstance(pixels, np.memmap)
    assert pixels[:, 0, 0, 0].tolist() == list(range(8))
    assert not list((tmp_path / "scratch").rglob("*.partial"))


def test_latents_keep_their_shape(lake: Lake, tmp_path: Path) -> None:
    latents = np.arange(24, dtype=np.float16).reshape(3, 2, 2, 2)
    columns = {"key": list("abc"), "sha256": list("abc"), "latents": [list(row.ravel()) for row in latents]}
    path, digest = lake.write_table("latents/00000", pa.table(columns), LATENTS)
    record = Record("latents", "table", "d", "r", "f", digest, path, "00000", 3, metadata={"shape": [2, 2, 2]})
    found = Scratch(lake, tmp_path / "scratch").latents([record])
    assert np.array_equal(found, latents)


def fill_together(folder: str, begin: Barrier, both: Barrier, num_fills: Synchronized) -> None:
    def fill(file: Path) -> None:
        with num_fills.get_lock():
            num_fills.value += 1
        with suppress(BrokenBarrierError):
            both.wait(2)  # for another one that fills, which there must not be
        file.write_bytes(b"filled")

    begin.wait()
    Scratch(Lake(folder), Path(folder)).made_once("one", fill)


def test_several_workers_fill_a_file_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    num_fills = context.Value("i", 0)
    shared = (str(tmp_path), context.Barrier(2), context.Barrier(2), num_fills)
    workers = [context.Process(target=fill_together, args=shared) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert num_fills.value == 1
    assert (tmp_path / "one").read_bytes() == b"filled"


def test_a_file_that_breaks_off_is_not_taken_for_whole(lake: Lake, tmp_path: Path) -> None:
    scratch = Scratch(lake, tmp_path / "scratch")

    def rows():
        yield np.zeros(2)
        raise OSError("no space left on device")

    with pytest.raises(StorageError, match=r"numbers\.npy cannot be written: OSError: no space left"):
        scratch.array("numbers.npy", (2, 2), np.dtype(np.float32), rows())
    with pytest.raises(ValueError, match=r"numbers\.npy: 1 rows came for an array of 2"):
        scratch.array("numbers.npy", (2, 2), np.dtype(np.float32), [np.zeros(2)])
    assert scratch.array("numbers.npy", (2, 2), np.dtype(np.float32), np.ones((2, 2))).sum() == 4


def test_views_read_only_what_is_asked_for() -> None:
    base = np.arange(20).reshape(10, 2)
    view = PickedArray(base, np.array([9, 3, 3, 0]))
    assert view.shape == (4, 2)
    assert view[[1, 0]].tolist() == [[6, 7], [18, 19]]
    assert view[-1].tolist() == [0, 1]
    assert np.asarray(view.subset(np.array([3]))).tolist() == [[0, 1]]
    copied = view[:2]
    copied[:] = 0
    assert base[9, 0] == 18
    texts = PickedTexts(pa.chunked_array([["a", None], ["c"]]), np.array([2, 1, 0]))
    assert list(texts) == ["c", None, "a"]
    assert (texts[np.int64(0)], texts[-1], texts[:2], len(texts)) == ("c", "a", ["c", None], 3)
    assert list(texts.subset(np.array([2, 0]))) == ["a", "c"]


def test_memory_does_not_grow_with_the_rows(lake: Lake, tmp_path: Path) -> None:
    """64 MiB of pixels are filled and read in any order, and none of them stay in memory of this process."""
    picture = np.zeros((128, 128, 3), np.uint8)
    num_rows = 64 * 2**20 // picture.nbytes
    scratch = Scratch(lake, tmp_path / "scratch")
    before = anonymous_mib()
    base = scratch.array("pixels.npy", (num_rows, *picture.shape), picture.dtype, (picture for _ in range(num_rows)))
    view = PickedArray(base, np.random.default_rng(0).permutation(num_rows))
    assert sum(int(view[[row, row - 1]].sum()) for row in range(num_rows)) == 0
    assert anonymous_mib() - before < 16


def anonymous_mib() -> float:
    """Memory of this process that no file stands behind."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024
