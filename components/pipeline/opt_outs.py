"""Which rows of the lake the opt-out list names.

What belongs here: matching the list against parts of raw_pairs, and the cache of perceptual hashes. What does not: the
list's form (``data.opt_outs``) and leaving rows out (``ingest.build_image_set`` notes them, ``rows`` obeys).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from components.contracts import Resources
from components.data.lake import Lake, Record
from components.data.opt_outs import OptOut, OptOuts, read_opt_outs
from components.data.perceptual_hash import perceptual_hash_of
from components.data.storage import partial_path

from .spec import open_workspace, spec_of
from .workspace import Workspace


def opt_outs_of(ws: Workspace) -> OptOuts:
    """The data set's own list and that of the environment (``ATELIER_OPT_OUT``), read now."""
    return read_opt_outs(ws.dataset.opt_out_uris())


def opted_out(ws: Workspace, parts: Sequence[Record], opt_outs: OptOuts) -> list[dict[str, OptOut]]:
    """For each part of raw_pairs the opted-out rows: key, and the entry that names it."""
    if not opt_outs.entries:
        return [{} for _ in parts]
    hashes: list[np.ndarray | None] = [None] * len(parts)
    if opt_outs.needs_hashes:
        items = [(part.path, part.data_version) for part in parts]
        hashes = list(ws.executor.map(partial(_hash_worker, spec_of(ws)), items, resources=Resources(1.0)))
    columns = ["key", "sha256", "source_sha256"]
    return [
        opt_outs.matches(ws.lake.read_table(part.path, columns), of_part)
        for part, of_part in zip(parts, hashes, strict=True)
    ]


def _hash_worker(spec: Mapping[str, Any]) -> Callable[[tuple[str, str]], np.ndarray]:
    ws = open_workspace(spec)
    return lambda item: part_hashes(ws.lake, ws.scratch, *item)


def part_hashes(lake: Lake, scratch: Path, path: str, data_version: str) -> np.ndarray:
    """Perceptual hashes of a part's pictures in its rows' order, uint64 (N,); kept under ``scratch``."""
    kept = scratch / "perceptual_hashes" / f"{data_version}.npy"
    if not kept.exists():
        images = (image.as_py() for batch in lake.batches(path, ["image"]) for image in batch["image"])
        hashes = [perceptual_hash_of(image) for image in images]
        kept.parent.mkdir(parents=True, exist_ok=True)
        new = partial_path(kept)
        with new.open("wb") as file:
            np.save(file, np.array(hashes, dtype=np.uint64))
        new.replace(kept)
    return np.load(kept, allow_pickle=False)
