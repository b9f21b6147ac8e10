"""What ingestion costs: the asset's stage function on two workers over a plain loop that does the same checks.

Ours decodes in processes with limits and keeps rows in key order; the loop holds a shard in memory and has neither. The
peak memory is that of a run's largest worker and of its decoder, with one shard and with twenty.
"""

import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from components import schemas
from components.data.catalog import load_dataset
from components.data.images import ImageLimits, NormalisedImage, normalise, normalise_caption
from components.data.lake import Lake
from components.data.parquet_reader import ParquetReader
from components.execution.local_executor import LocalExecutor
from components.execution.memory import peak_memory
from components.execution.ray_executor import RayExecutor
from components.pipeline.ingest import ingest, shard_names
from components.pipeline.workspace import Workspace
from components.recipes import load_recipe
from components.tracking import open_tracker

from .measurement import Ratio, open_bench_workspace

NUM_ROUNDS = 3
NUM_CPUS = 2
NUM_SHARDS, ROWS_PER_SHARD, SIDE = 20, 50, 256
TIMED_SHARDS, TIMED_ROWS = 12, 200  # longer shards: what a shard costs besides its pictures is small in use as well
CARD = """\
name: photos
description: Pictures of the benchmark.
license: CC0-1.0
source: {format: parquet, uri: "data/*.parquet"}
"""


def ingestion_over_plain_loop(folder: Path) -> list[Ratio]:
    """Pictures a second both ways, models none; and MiB with twenty shards over MiB with one."""
    datasets = write_photos(folder / "datasets", NUM_SHARDS, ROWS_PER_SHARD)
    timed = write_photos(folder / "timed", TIMED_SHARDS, TIMED_ROWS)
    ours, reference = [], []
    num_rows = TIMED_SHARDS * TIMED_ROWS
    with RayExecutor("local", num_cpus=NUM_CPUS) as executor:
        _make(ws := open_photos(timed, open_bench_workspace(folder / "warm", executor)), shard_names(ws)[:NUM_CPUS])
        for number in range(NUM_ROUNDS):
            started = time.perf_counter()
            _plain_loop(timed / "photos" / "data", folder / f"plain{number}")
            reference.append(num_rows / (time.perf_counter() - started))
            ours.append(_steady_rate(open_photos(timed, open_bench_workspace(folder / f"ours{number}", executor))))
    settings = f"{num_rows} JPEG pictures of {SIDE} px, {TIMED_SHARDS} Parquet shards, {NUM_CPUS} workers that run"
    memory = {count: [_peak_mib(datasets, folder / f"memory{count}", count)] for count in (1, NUM_SHARDS)}
    return [
        Ratio.of("ingest / plain Pillow + pyarrow loop", ours, reference, "pictures/s", "at least 1.5", settings),
        Ratio.of(
            "peak memory, 20 shards / 1 shard",
            memory[NUM_SHARDS],
            memory[1],
            "MiB",
            "at most 1.1",
            f"shards of {ROWS_PER_SHARD} JPEG pictures of {SIDE} px; one worker and its decoder",
        ),
    ]


def write_photos(root: Path, num_shards: int, rows_per_shard: int) -> Path:
    """A data set of pictures with structure at all scales, as JPEG; the folder of data sets."""
    data = root / "photos" / "data"
    data.mkdir(parents=True)
    (root / "photos" / "dataset.yaml").write_text(CARD)
    rng = np.random.default_rng(0)
    for shard in range(num_shards):
        images = []
        for _ in range(rows_per_shard):
            layers = [rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8) for cells in (4, 16, 96)]
            scaled = [Image.fromarray(layer).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for layer in layers]
            sink = io.BytesIO()
            Image.blend(Image.blend(scaled[0], scaled[1], 0.3), scaled[2], 0.15).save(sink, "JPEG", quality=90)
            images.append(sink.getvalue())
        rows = range(rows_per_shard)
        table = {"key": [f"{shard}-{i}" for i in rows], "jpg": images, "caption": [f"picture {i}" for i in rows]}
        pq.write_table(pa.table(table), data / f"{shard:05d}.parquet")
    return root


def open_photos(datasets: Path, ws: Workspace) -> Workspace:
    """The benchmark's workspace on these pictures, all of them."""
    recipe = ws.recipe.with_overrides({"data.max_shards": "null", "data.max_rows_per_shard": "null"})
    return replace(ws, dataset=load_dataset("photos", datasets), recipe=recipe)


def _steady_rate(ws: Workspace) -> float:
    """Pictures a second once every worker has ended a shard: starting workers and decoders is left out.

    Told by when the workers wrote their tables, not by when results came back. The clock starts at the first table, and
    one table of each worker is not counted, so that what was begun before the clock never helps.
    """
    _make(ws, shard_names(ws))
    records = ws.lake.records("raw_pairs").values()
    written = [(Path(ws.lake.root) / record.path).stat().st_mtime for record in records]
    return (len(written) - NUM_CPUS) * TIMED_ROWS / (max(written) - min(written))


def _make(ws: Workspace, names: list[str]) -> None:
    for result in ingest(ws, names):
        if result.outcome is None:
            raise RuntimeError(result.failure)


def _plain_loop(data: Path, target: Path) -> None:
    """The loop that one would write without Atelier: read, check, normalise, sort, write."""
    target.mkdir()
    limits = ImageLimits()
    for shard, file in enumerate(sorted(data.iterdir())):
        rows = []
        for row in ParquetReader([str(file)]).read(0):
            image = normalise(row.image or b"", limits)
            if isinstance(image, NormalisedImage):
                caption = normalise_caption(row.caption)
                names = [name for name in schemas.RAW_PAIRS.schema.names if hasattr(image, name)]
                columns = {name: getattr(image, name) for name in names}
                texts = {"caption": caption, "source": row.source, "license": ""}
                rows.append({"key": row.key, "image": image.data, **columns, **texts})
        table = pa.Table.from_pylist(sorted(rows, key=lambda row: row["key"]), schemas.RAW_PAIRS.schema)
        pq.write_table(table, target / f"{shard}.parquet", compression="zstd", row_group_size=512)


def _peak_mib(datasets: Path, home: Path, num_shards: int) -> float:
    """Peak resident memory, in a process of its own, of ingesting the first shards in turn; its decoder's is added."""
    command = [sys.executable, "-m", "tests.benchmarks.ingestion", str(datasets), str(home), str(num_shards)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _measure_memory(datasets: Path, home: Path, num_shards: int) -> float:
    import gc
    import resource

    ws = Workspace(  # with nothing that a worker does not have, such as MLflow
        dataset=load_dataset("photos", datasets),
        recipe=load_recipe("smoke", {"data.max_shards": "null", "data.max_rows_per_shard": "null"}),
        lake=Lake(str(home / "lake")),
        executor=LocalExecutor(),
        tracker=open_tracker(f"local:{home / 'tracker'}"),
        scratch=home / "scratch",
    )
    _make(ws, shard_names(ws)[:num_shards])
    gc.collect()  # ends the decoder, so that its memory is known
    return (peak_memory() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024) / 2**20


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure_memory(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))) + "\n")
