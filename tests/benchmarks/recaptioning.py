"""What Ray costs or gains in captioning: the asset's stage function over a plain ``generate()`` loop."""

import time
from pathlib import Path

import numpy as np
import torch

from components.data.lake import ROWS_PER_GROUP
from components.data.pixels import decode_pixels
from components.execution.ray_executor import RayExecutor
from components.pipeline.captions import KINDS, load_kind, recaption
from components.pipeline.graph import make
from components.pipeline.ingest import shard_names
from components.pipeline.workspace import Workspace

from .measurement import Ratio, open_bench_workspace

NUM_ROUNDS = 3
NUM_CPUS = 2
RECIPE = {"data.max_shards": "6", "data.max_rows_per_shard": "3000"}


def recaptioning_over_generate(folder: Path) -> Ratio:
    """Pictures a second with both captions written: scores, verdicts and Parquet included in ours alone."""
    with RayExecutor("local", num_cpus=NUM_CPUS) as executor:
        ws = open_bench_workspace(folder, executor)
        ws = ws.with_recipe(ws.recipe.with_overrides(RECIPE))
        for asset in ("raw_pairs", "image_set", "clip", "base_captioner", "ssc_captioner", "dsc_captioner"):
            make(ws, asset)
        make(ws, "champion_captioners")
        names = shard_names(ws)
        num_rows = sum(record.num_rows or 0 for record in ws.lake.records("raw_pairs").values())
        ours, reference = [], []
        for _ in range(NUM_ROUNDS):
            reference.append(num_rows / _plain_loop(ws))
            ours.append(_steady_rate(ws, names))
    return Ratio.of(
        "recaptioned / plain generate() loop",
        ours,
        reference,
        "pictures/s",
        "at least 1.0",
        f"{num_rows} pictures of 32 px, two captions each, batch {ROWS_PER_GROUP}, models loaded before the "
        f"clock starts, the loop with {NUM_CPUS} threads",
    )


def _steady_rate(ws: Workspace, names: list[str]) -> float:
    """Pictures a second from the end of the first shard to the end of the last: loading is left out, as in the loop."""
    results = recaption(ws.forced(), names)
    num_rows, started = 0, 0.0
    for number, result in enumerate(results):
        if result.outcome is None:
            raise RuntimeError(result.failure)
        if number == 0:
            started = time.perf_counter()
        else:
            num_rows += result.outcome.record.num_rows or 0
    return num_rows / (time.perf_counter() - started)


def _plain_loop(ws: Workspace) -> float:
    """Seconds of the loop that one would write without Atelier: read, decode, generate twice; nothing is kept."""
    torch.set_num_threads(NUM_CPUS)
    captioners = {kind: load_kind(ws, kind) for kind in KINDS}
    started = time.perf_counter()
    for record in ws.lake.records("raw_pairs").values():
        for batch in ws.lake.batches(record.path, ["key", "image"]):
            pixels = np.stack([decode_pixels(image.as_py(), ws.recipe.data.resolution) for image in batch["image"]])
            for captioner in captioners.values():
                captioner.caption(pixels, batch["key"].to_pylist())
    return time.perf_counter() - started
