"""Ingests the shards that ``hostile`` made, as a worker does it, and measures what that took.

``python -m tests.components.data.hostile_ingest FOLDER`` prints a line of JSON for each shard, then the peak memory of
this process and of its decoder. It does not import what made the shards: their bytes would count.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.contracts import Reader
from components.data.folder_reader import open_folder
from components.data.huggingface_reader import HuggingFaceReader
from components.data.ingest import IngestConfig, ingest_shard
from components.data.parquet_reader import ParquetReader
from components.data.picture_process import PictureProcess
from components.data.sources import UnreadableShard
from components.data.table_rows import TableColumns
from components.data.webdataset_reader import WebdatasetReader
from components.execution.memory import peak_memory


def reader_of(folder: Path) -> Reader:
    """The reader of a shard by what lies in its folder; pictures that a table names lie in ``inside``."""
    columns = TableColumns()
    if (folder / "inside").exists():
        columns = TableColumns(image="image", images=str(folder / "inside"))
    if (folder / "0.parquet").exists():
        return ParquetReader([str(folder / "0.parquet")], columns)
    if (folder / "0.arrow").exists():
        return HuggingFaceReader([str(folder / "0.arrow")])
    if (folder / "0.tar").exists():
        return WebdatasetReader([str(folder / "0.tar")])
    return open_folder(str(folder), 1000, None, None, "first")


def outcomes(folder: Path) -> Iterator[dict[str, Any]]:
    """What became of each shard: its rows' keys and reasons or its failure, and its seconds."""
    config = IngestConfig(max_picture_seconds=120, max_shard_seconds=300)
    with PictureProcess(config, config.max_picture_seconds) as decoder:
        for place in sorted(folder.iterdir()):
            started = time.monotonic()
            told: dict[str, Any] = {"shard": place.name}
            try:
                result = ingest_shard(reader_of(place), 0, config, normaliser=decoder, scratch=folder)
                rejected = [(row["key"], row["reason"]) for row in result.rejected.to_pylist()]
                told["rows"] = [*((key, "kept") for key in result.kept), *rejected]
                told["read"], told["written"] = result.num_read, sum(group.num_rows for group in result.row_groups())
            except UnreadableShard as error:
                told["unreadable"] = str(error)
            except BaseException as error:  # the suite shows that there is no other
                told["failure"] = f"{type(error).__name__}: {error}"
            yield told | {"seconds": round(time.monotonic() - started, 2)}


def peak_mib() -> int:
    """Highest resident memory of this process and of its largest child that has ended, together, MiB."""
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return round((peak_memory() + child) / 2**20)


if __name__ == "__main__":
    for outcome in outcomes(Path(sys.argv[1])):
        sys.stdout.write(json.dumps(outcome) + "\n")
    sys.stdout.write(json.dumps({"peak_mib": peak_mib()}) + "\n")
