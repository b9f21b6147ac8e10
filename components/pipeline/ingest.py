"""``raw_pairs`` and ``image_set``: from a data set's source shards to checked rows and one manifest of them.

What belongs here: which shards there are, running the checks over them, the manifest. What does not: the checks
themselves (``data.ingest``, ``data.images``) and the formats (readers).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from components import schemas
from components.contracts import Reader, Resources
from components.data.catalog import split_of
from components.data.ingest import ingest_shard
from components.data.lake import digest_of
from components.data.pictures import captioned_grid
from components.data.pixels import decode_pixels
from components.data.storage import StorageError, named_failures, open_storage

from .lineage import Ledger
from .opt_outs import opt_outs_of, opted_out
from .progress import tracked
from .shards import Caught, ShardResult, guarded
from .spec import open_workspace, spec_of
from .workspace import Made, Outcome, UnfitParent, Workspace

log = logging.getLogger(__name__)
SAMPLE_SIDE = 128  # of the pictures shown with a shard, in pixels


def open_reader(ws: Workspace) -> Reader:
    """The data set's reader, with the recipe's limits on how much is taken."""
    data = ws.recipe.data
    return ws.dataset.reader(data.resolution, data.max_rows_per_shard, data.max_shards)


def shard_name(position: int) -> str:
    """A shard's partition key: its position among the source's shards, zero-padded."""
    return f"{position:05d}"


def shard_names(ws: Workspace) -> list[str]:
    """Partition keys of all shards of the source, in order."""
    return [shard_name(position) for position in range(len(open_reader(ws).shards()))]


def ingest(ws: Workspace, shards: Sequence[str]) -> Iterator[ShardResult]:
    """Read, check and keep each shard; a shard that cannot be read fails alone, with its reason."""
    ws.lake.check_writable()
    reader = open_reader(ws)
    uris = reader.shards()
    settings = {
        "source": ws.dataset.source_settings(),
        "data": ws.recipe.data.model_dump(mode="json", include={"resolution", "max_rows_per_shard", "ingest"}),
    }
    waiting: list[tuple[str, str, dict[str, str]]] = []
    for shard in shards:
        if int(shard) >= len(uris):
            yield ShardResult(shard, failure=f"raw_pairs[{shard}]: the source has only {len(uris)} shards")
            continue
        try:
            inputs = {"source": _state_of(uris[int(shard)])}
        except (StorageError, FileNotFoundError) as error:
            yield ShardResult(shard, failure=f"raw_pairs[{shard}] from {uris[int(shard)]}: {error}")
            continue
        fingerprint, existing = ws.reusable("raw_pairs", inputs, settings, shard)
        if existing:
            yield ShardResult(shard, existing)
        else:
            waiting.append((shard, fingerprint, inputs))
    if not waiting:
        return
    spec = spec_of(ws)
    results = ws.executor.map(
        guarded(partial(_ingest_worker, spec)), [shard for shard, _, _ in waiting], resources=Resources(1.0)
    )
    results = tracked(results, log, "raw_pairs", len(waiting), "shards")
    for (shard, fingerprint, inputs), result in zip(waiting, results, strict=True):
        if isinstance(result, Caught):
            yield ShardResult(shard, failure=f"raw_pairs[{shard}] from {uris[int(shard)]}: {result.message}")
            continue
        seconds = result.pop("seconds")
        yield ShardResult(
            shard,
            ws.keep("raw_pairs", fingerprint, inputs, Made(**result), seconds=seconds, shard=shard),
        )


def _ingest_worker(spec: Mapping[str, Any]) -> Callable[[str], dict[str, Any]]:
    ws = open_workspace(spec)
    reader = open_reader(ws)

    def work(shard: str) -> dict[str, Any]:
        started = time.perf_counter()
        result = ingest_shard(reader, int(shard), ws.recipe.data.ingest, ws.dataset.license)
        path, digest = ws.lake.write_table(f"raw_pairs/{shard}", result.table, schemas.RAW_PAIRS)
        rejected_path, _ = ws.lake.write_table(f"rejected/{shard}", result.rejected, schemas.REJECTED)
        kept, rejected = result.table.num_rows, result.rejected.num_rows
        return {
            "data_version": digest,
            "path": path,
            "num_rows": kept,
            "metadata": {
                "read": result.num_read,
                "kept": kept,
                "rejected": rejected,
                "rejected_by_reason": dict(result.reasons),
                "rejected_path": rejected_path,
                "uri": reader.shards()[int(shard)],
            },
            "pictures": {"sample": _sample(result.table)} if kept else {},
            "seconds": time.perf_counter() - started,
        }

    return work


def _sample(table: pa.Table) -> Image.Image:
    first = table.slice(0, 8).to_pylist()
    pixels = np.stack([decode_pixels(row["image"], SAMPLE_SIDE) for row in first])
    return captioned_grid(pixels, [row["caption"] for row in first], scale=1)


def _state_of(uri: str) -> str:
    """What tells that a source shard has changed: its size and modification time or etag."""
    if uri.startswith("scenes://"):
        return uri
    filesystem, path = open_storage(uri)
    with named_failures(uri, "read"):
        return digest_of([uri, str(filesystem.ukey(path))])


def build_image_set(ws: Workspace) -> Outcome:
    """The manifest of all shards of raw_pairs: what everything that learns from pictures reads."""
    names = shard_names(ws)
    present = ws.lake.records("raw_pairs")
    missing = [name for name in names if name not in present]
    if missing:
        raise UnfitParent(
            f"raw_pairs lacks shards {', '.join(missing[:8])} of {len(names)}: materialize raw_pairs for them first"
        )
    parts = [present[name] for name in names]
    for part in parts:
        ws.check_origin(part)
    inputs = {"raw_pairs": digest_of([part.data_version for part in parts])}
    opt_outs = opt_outs_of(ws)
    settings: dict[str, Any] = {
        "evaluation_fraction": ws.dataset.evaluation_fraction,
        "examples": ws.dataset.example_settings(),
        "data": ws.recipe.data.model_dump(mode="json", include={"max_rows_per_shard", "max_shards"}),
    }

    if opt_outs.entries:
        settings["opt_out"] = opt_outs.settings()

    def make(_: str) -> Made:
        keys = [key for part in parts for key in ws.lake.read_table(part.path, ["key"])["key"].to_pylist()]
        repeated = len(keys) - len(set(keys))
        if repeated:
            raise UnfitParent(f"{repeated} keys of raw_pairs stand in more than one shard; keys must be unique")
        matches = list(zip(parts, map(list, opted_out(ws, parts, opt_outs)), strict=True))
        left_out = {key for _, found in matches for key in found}
        seen_by = Ledger(ws).seen_by(matches) if left_out else []
        known = set(keys) - left_out
        evaluation = sum(split_of(key, ws.dataset.evaluation_fraction) == "evaluation" for key in known)
        reader = open_reader(ws)
        examples = {
            kind: {key: text for key, text in ws.dataset.examples(kind, reader).items() if key in known}
            for kind in ("ssc", "dsc")
        }
        content = {
            "dataset": ws.dataset.name,
            "shards": [
                {
                    "shard": part.shard,
                    "data_version": part.data_version,
                    "path": part.path,
                    "rows": part.num_rows,
                    "rejected": part.metadata["rejected"],
                }
                for part in parts
            ],
            "splits": {"train": len(known) - evaluation, "evaluation": evaluation},
            "examples": examples,
            "opted_out": sorted(left_out),
        }
        path, digest = ws.write_manifest("image_set", content)
        return Made(
            digest,
            path,
            num_rows=len(keys),
            metadata={
                "read": sum(part.metadata["read"] for part in parts),
                "kept": len(keys),
                "rejected": sum(part.metadata["rejected"] for part in parts),
                "opted_out": len(left_out),
                "opted_out_seen_by": [str(one.model.registry or one.model.asset) for one in seen_by],
                "train": len(known) - evaluation,
                "evaluation": evaluation,
                "ssc_examples": len(examples["ssc"]),
                "dsc_examples": len(examples["dsc"]),
            },
        )

    return ws.materialize("image_set", inputs, settings, make)
