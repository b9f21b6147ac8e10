"""The data set ``mine``: a card and Parquet files of pictures with captions, as somebody brings their own."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.data.scene_graph import scene_for
from components.data.scene_rendering import encode_png, render

CARD = """\
name: mine
description: pictures of the test
license: CC0-1.0
source: {format: parquet, uri: "data/*.parquet"}
"""


def own_data(datasets: Path, more: str = "") -> Path:
    """Make the data set, without any file yet, in a catalogue; its folder of files. ``more`` is added to its card."""
    data = datasets / "mine" / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data.parent / "dataset.yaml").write_text(CARD + more)
    return data


def pictures(numbers: Iterable[int], seed: int = 5) -> list[bytes]:
    """Scenes of a seed as PNG files of 32 x 32 pixels."""
    return [encode_png(one) for one in render([scene_for(number, seed=seed) for number in numbers], 32)]


def write_rows(file: Path, rows: Mapping[str, bytes], captions: Iterable[str] | None = None) -> None:
    """Write one file of the data set: pictures by key, and the captions (``words`` where none are given)."""
    captions = ["words"] * len(rows) if captions is None else list(captions)
    pq.write_table(pa.table({"key": list(rows), "png": list(rows.values()), "caption": captions}), file)


def write_shard(data: Path, shard: int, num_rows: int = 4, seed: int = 5) -> None:
    """Write a file of scenes of its own: up to ten."""
    keys = [f"{shard}-{row}" for row in range(num_rows)]
    scenes = pictures((10 * shard + row for row in range(num_rows)), seed)
    write_rows(data / f"{shard}.parquet", dict(zip(keys, scenes, strict=True)))
