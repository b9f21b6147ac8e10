"""``raw_pairs`` and ``image_set``: from a data set's source shards to checked rows and one manifest of them.

What belongs here: which shards there are, running the checks over them, the manifest. What does not: the checks
themselves (``data.ingest``, ``data.images``) and the formats (readers).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from components import schemas
from components.addresses import without_credentials
from components.contracts import Reader, Resources
from components.data.catalog import Dataset
from components.data.duplicates import Looks, copies, held_out_copies
from components.data.images import Rejection
from components.data.ingest import IngestResult, RejectedRows, ingest_shard
from components.data.lake import Record, digest_of
from components.data.part_writer import spooled_part
from components.data.picture_process import PictureProcess
from components.data.pictures import captioned_grid
from components.data.pixels import decode_pixels
from components.data.sources import UnreadableShard
from components.data.storage import StorageError
from components.execution.memory import forget_peak_memory
from components.execution.usage import Meter, metered
from components.recipes.recipe import Recipe

from .backfill import RangeEstimate, estimate_of, rows_expected
from .lineage import Ledger
from .opt_outs import opt_outs_of, opted_out
from .progress import tracked
from .row_filters import filter_versions, load_filters
from .shards import Caught, ShardResult, guarded, pictures_per_second
from .spec import open_workspace, spec_of
from .splits import split_figures
from .workspace import Made, Outcome, UnfitParent, Workspace

log = logging.getLogger(__name__)
SAMPLE_SIDE = 128  # of the pictures shown with a shard, in pixels


def open_reader(dataset: Dataset, recipe: Recipe) -> Reader:
    """The data set's reader, with the recipe's limits on how much is taken."""
    data = recipe.data
    return dataset.reader(data.resolution, data.max_rows_per_shard, data.max_shards)


def shard_name(position: int) -> str:
    """A shard's partition key: its position among the source's shards, zero-padded."""
    return f"{position:05d}"


def names_of(reader: Reader) -> list[str]:
    """Partition keys of all shards of a source, in order."""
    return [shard_name(position) for position in range(len(reader.shards()))]


def shard_names(ws: Workspace) -> list[str]:
    """Partition keys of all shards of the workspace's source, in order."""
    return names_of(open_reader(ws.dataset, ws.recipe))


@dataclass(frozen=True, slots=True)
class Intake:
    """What decides each shard of ``raw_pairs``: the state of its source, the filters' weights, and settings."""

    reader: Reader
    settings: Mapping[str, Any]
    filters: Mapping[str, str]

    @classmethod
    def of(cls, ws: Workspace) -> Intake:
        """What a workspace's data set and recipe say."""
        settings = {
            "source": ws.dataset.source_settings(),
            "data": ws.recipe.data.model_dump(mode="json", include={"resolution", "max_rows_per_shard", "ingest"}),
        }
        return cls(open_reader(ws.dataset, ws.recipe), settings, filter_versions(ws.recipe.data.ingest))

    def inputs(self, shard: str) -> dict[str, str]:
        """A shard's inputs, told without reading it.

        Raises :class:`StorageError` or FileNotFoundError where the source does not answer, or lacks the file.
        """
        return {"source": self.reader.state(int(shard)), **self.filters}


def ingest(ws: Workspace, shards: Sequence[str]) -> Iterator[ShardResult]:
    """Read, check and keep each shard; a shard that cannot be read fails alone, with its reason."""
    ws.lake.check_writable()
    waiting: list[_Waiting] = []
    for found in _plan(ws, shards):
        if isinstance(found, _Waiting):
            waiting.append(found)
        else:
            yield found
    if not waiting:
        return
    log.info("%s", _estimate(ws, waiting))
    forget_peak_memory()
    spec, meter = spec_of(ws), Meter()
    results = ws.executor.map(
        metered(guarded(partial(_ingest_worker, spec))),
        [(one.shard, one.inputs["source"]) for one in waiting],
        resources=Resources(1.0),
    )
    results = tracked(results, log, "raw_pairs", len(waiting), "shards")
    started = time.perf_counter()
    for one, answer in zip(waiting, results, strict=True):
        usage, result = meter.lap().with_workers([answer.usage]), answer.result
        seconds, started = time.perf_counter() - started, time.perf_counter()
        if isinstance(result, Caught):
            yield ShardResult(one.shard, failure=f"raw_pairs[{one.shard}] from {one.uri}: {result.message}")
            continue
        result["metadata"] |= pictures_per_second(result["metadata"]["read"], answer.seconds)
        made = Made(**result)
        outcome = ws.keep("raw_pairs", one.fingerprint, one.inputs, made, seconds=seconds, usage=usage, shard=one.shard)
        yield ShardResult(one.shard, outcome)


def estimate_ingest(ws: Workspace, shards: Sequence[str]) -> RangeEstimate:
    """What reading these shards will take; those that are up to date take nothing."""
    return _estimate(ws, [one for one in _plan(ws, shards) if isinstance(one, _Waiting)])


def _estimate(ws: Workspace, waiting: Sequence[_Waiting]) -> RangeEstimate:
    return estimate_of(ws, "raw_pairs", len(waiting), rows_expected(ws, [one.shard for one in waiting]))


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A shard that must be read."""

    shard: str
    uri: str
    fingerprint: str
    inputs: Mapping[str, str]


def _plan(ws: Workspace, shards: Sequence[str]) -> Iterator[ShardResult | _Waiting]:
    """What each shard needs: nothing more (it is reused, or cannot be read), or to be read."""
    intake = Intake.of(ws)
    uris = intake.reader.shards()
    for shard in shards:
        if int(shard) >= len(uris):
            yield ShardResult(shard, failure=f"raw_pairs[{shard}]: the source has only {len(uris)} shards")
            continue
        uri = without_credentials(uris[int(shard)])
        try:
            inputs = intake.inputs(shard)
        except (StorageError, FileNotFoundError) as error:
            yield ShardResult(shard, failure=f"raw_pairs[{shard}] from {uri}: {error}")
            continue
        fingerprint, existing = ws.reusable("raw_pairs", inputs, intake.settings, shard)
        yield ShardResult(shard, existing) if existing else _Waiting(shard, uri, fingerprint, inputs)


def _ingest_worker(spec: Mapping[str, Any]) -> Callable[[tuple[str, str]], dict[str, Any]]:
    ws = open_workspace(spec)
    reader, config = open_reader(ws.dataset, ws.recipe), ws.recipe.data.ingest
    pictures = PictureProcess(config, config.max_picture_seconds)
    filters = load_filters(config, ws.recipe.data.fit)
    ws.scratch.mkdir(parents=True, exist_ok=True)

    def work(item: tuple[str, str]) -> dict[str, Any]:
        shard, state = item
        uri = reader.shards()[int(shard)]
        result = ingest_shard(
            reader,
            int(shard),
            config,
            ws.dataset.license,
            normaliser=pictures,
            filters=filters,
            scratch=ws.scratch,
        )
        if reader.state(int(shard)) != state:
            raise UnreadableShard(uri, "it changed while it was read")
        path, digest = _write_part(ws, shard, result)
        rejected_path, _ = ws.lake.write_table(f"rejected/{shard}", result.rejected, schemas.REJECTED)
        return {
            "data_version": digest,
            "path": path,
            "num_rows": result.num_kept,
            "metadata": {
                "read": result.num_read,
                "kept": result.num_kept,
                "rejected": result.rejected.num_rows,
                "rejected_by_reason": dict(result.reasons),
                "rejected_path": rejected_path,
                "uri": without_credentials(uri),
            },
            "pictures": {"sample": _sample(result.head(8))} if result.num_kept else {},
        }

    return work


def _write_part(ws: Workspace, shard: str, result: IngestResult) -> tuple[str, str]:
    """Put the kept rows into the lake without holding them; (path, digest)."""
    with spooled_part(result.row_groups(), schemas.RAW_PAIRS, ws.scratch) as (file, digest):
        path = f"raw_pairs/{shard}/{digest}.parquet"
        ws.lake.put_file(path, file)
        return path, digest


def _sample(table: pa.Table) -> Image.Image:
    first = table.to_pylist()
    pixels = np.stack([decode_pixels(row["image"], SAMPLE_SIDE) for row in first])
    return captioned_grid(pixels, [row["caption"] for row in first], scale=1)


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
        "data": ws.recipe.data.model_dump(mode="json", include={"max_rows_per_shard", "max_shards", "near_duplicates"}),
        "duplicate_images": ws.recipe.data.ingest.duplicate_images,
    }

    if opt_outs.entries:
        settings["opt_out"] = opt_outs.settings()

    def make(_: str) -> Made:
        looks = Looks.of(_looks(ws, parts), ws.recipe.data.ingest.duplicate_images)
        found = copies(looks, ws.recipe.data.ingest.duplicate_images, ws.recipe.data.near_duplicates)
        matches = list(zip(parts, map(list, opted_out(ws, parts, opt_outs)), strict=True))
        left_out = {key for _, named in matches for key in named}
        in_neither = found.keys() | {row for row, key in enumerate(looks.keys) if key in left_out}
        found |= held_out_copies(looks, in_neither, ws.dataset.is_held_out)
        keys = [key for row, key in enumerate(looks.keys) if row not in found]
        set_aside = _rejected_copies(ws, parts, looks, found)
        rejected_path, _ = ws.lake.write_table("rejected/image_set", set_aside.table(), schemas.REJECTED)
        places = _places(parts, found)
        seen_by = Ledger(ws).seen_by(matches) if left_out else []
        known = set(keys) - left_out
        evaluation = sum(map(ws.dataset.is_held_out, known))
        reader = open_reader(ws.dataset, ws.recipe)
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
                    "set_aside": places[number],
                }
                for number, part in enumerate(parts)
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
                "rejected": sum(part.metadata["rejected"] for part in parts) + len(set_aside),
                "opted_out": len(left_out),
                "opted_out_seen_by": [str(one.model.registry or one.model.asset) for one in seen_by],
                "rejected_across_shards": set_aside.reasons(),
                "rejected_path": rejected_path,
                "train": len(known) - evaluation,
                "evaluation": evaluation,
                "ssc_examples": len(examples["ssc"]),
                "dsc_examples": len(examples["dsc"]),
                **split_figures(ws, content, [part.path for part in parts]),
            },
        )

    return ws.materialize("image_set", inputs, settings, make)


def _looks(ws: Workspace, parts: Sequence[Record]) -> Iterator[tuple[str, Mapping[str, list]]]:
    """What tells copies, of the rows of all parts, without their pictures."""
    columns = ["key", "sha256", "caption", "perceptual_hash", "colours"]
    for part in parts:
        for batch in ws.lake.batches(part.path, columns):
            yield str(part.shard), {name: batch[name].to_pylist() for name in columns}


def _rejected_copies(
    ws: Workspace, parts: Sequence[Record], looks: Looks, found: Mapping[int, Rejection]
) -> RejectedRows:
    """The rows that are set aside for others', with the sources that their parts name."""
    rejected, row = RejectedRows(), 0
    for part in parts if found else []:
        for source in ws.lake.read_table(part.path, ["source"])["source"].to_pylist():
            if row in found:
                rejected.add(looks.keys[row], source, found[row])
            row += 1
    return rejected


def _places(parts: Sequence[Record], found: Mapping[int, Rejection]) -> list[list[int]]:
    """By part: the numbers of its rows that are set aside."""
    places: list[list[int]] = []
    start = 0
    for part in parts:
        end = start + (part.num_rows or 0)
        places.append([row - start for row in range(start, end) if row in found])
        start = end
    return places
