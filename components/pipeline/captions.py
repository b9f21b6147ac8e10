"""``champion_captioners``, ``recaptioned``, ``training_set``: who writes captions, what they wrote, what may be used.

What belongs here: joining captioner models, the worker pool and the records. What does not: writing a caption
(``families.captioner``), judging it (``captioning.quality``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components import schemas
from components.contracts import Captioner, ModelVersion
from components.data.lake import Record, digest_of
from components.data.pictures import captioned_grid
from components.data.pixels import decode_pixels
from components.execution.device import best_device, fast_dtype

from .progress import silence_libraries
from .rows import in_memory, load_rows
from .shards import ShardResult, ShardStage, make_shards
from .workspace import Made, Outcome, UnfitParent, Workspace

log = logging.getLogger(__name__)
KINDS = ("ssc", "dsc")
SAMPLE_SIDE = 128  # of the pictures shown with a shard, in pixels


class GateFailed(RuntimeError):
    """Captioners did not pass their gate; the message says which test and which figure."""


def choose_champions(ws: Workspace) -> Outcome:
    """Let the two candidate captioners caption held-out pictures; where their captions pass, they become champions."""
    candidates = {kind: ws.parent(f"{kind}_captioner") for kind in KINDS}
    inputs = {f"{kind}_captioner": record.data_version for kind, record in candidates.items()}
    inputs["clip"] = ws.parent("clip").data_version
    settings = ws.recipe.recaption.model_dump(mode="json", exclude={"workers"})
    return ws.materialize("champion_captioners", inputs, settings, lambda _: _choose(ws, candidates))


def _choose(ws: Workspace, candidates: Mapping[str, Record]) -> Made:
    from components.captioning.quality import quality_of
    from components.captioning.recaption import measure_quality

    split = load_rows(ws)
    rows = split.evaluation
    rows = in_memory(rows, ws.recipe.recaption.num_gate_pictures)
    scorer = _load_scorer(ws.model_folder("clip"))
    texts: dict[str, list[str]] = {}
    metadata: dict[str, Any] = {}
    for kind, record in candidates.items():
        texts[kind] = load_kind(ws, kind).caption(rows.pixels, rows.keys)
        quality = measure_quality(texts[kind], rows.pixels, scorer, ws.recipe.recaption.quality)
        metadata |= {f"{kind}_{name}": value for name, value in quality.figures().items()}
        examples = [text for text in split.train.texts.get(f"{kind}_example", ()) if text]
        style = quality_of(examples, [], [], ws.recipe.recaption.quality) if examples else None
        verdict = quality.verdict(ws.recipe.recaption.quality, style)
        if verdict:
            raise GateFailed(
                f"{record.registry} stays a candidate, the champions stay as they were: its {kind} captions of "
                f"{len(rows)} held-out pictures failed: {verdict}"
            )
    champions = {}
    for kind, record in candidates.items():
        assert record.registry is not None
        name, version = record.registry.rsplit("/", 1)
        ws.tracker.set_alias(ModelVersion(name, version, ws.lake.uri(record.path)), "champion")
        champions[kind] = {"registry": record.registry, "data_version": record.data_version, "path": record.path}
    path, _ = ws.write_manifest("champion_captioners", champions)
    shown = [f"{ssc} | {dsc}" for ssc, dsc in zip(texts["ssc"][:8], texts["dsc"][:8], strict=True)]
    samples = [
        {"key": key, "caption": caption or "", "ssc": ssc, "dsc": dsc}
        for key, caption, ssc, dsc in zip(
            rows.keys[:8], rows.texts["caption"][:8], texts["ssc"][:8], texts["dsc"][:8], strict=True
        )
    ]
    return Made(
        data_version=",".join(f"{kind}/{champions[kind]['registry'].rsplit('/', 1)[1]}" for kind in KINDS),
        path=path,
        metadata={**metadata, **{kind: champions[kind]["registry"] for kind in KINDS}, "samples": samples},
        pictures={"samples": captioned_grid(rows.pixels[:8], shown)},
    )


def load_kind(ws: Workspace, kind: str) -> Captioner:
    """The current candidate captioner of a kind."""
    return _load_captioner(
        ws.model_folder(f"{kind}_captioner"), ws.recipe.recaption.temperature, ws.recipe.recaption.seed
    )


def recaption(ws: Workspace, shards: Sequence[str]) -> Iterator[ShardResult]:
    """Write SSC and DSC for each shard with the champion captioners."""
    yield from make_shards(ws, recaption_stage(ws), shards)


def recaption_stage(ws: Workspace) -> ShardStage:
    """How ``recaptioned`` is made from a row group of raw_pairs."""
    champions_record, champions = ws.read_manifest("champion_captioners")
    clip = ws.parent("clip")
    ws.check_origin(champions_record)
    config = ws.recipe.recaption
    versions = {"champion_captioners": digest_of(champions), "clip": clip.data_version}
    from components.captioning.recaption import CaptionWorker

    factory = CaptionWorker(
        captioners={
            kind: partial(
                _load_captioner,
                ws.lake.fetch_folder(champions[kind]["path"], ws.scratch),
                config.temperature,
                config.seed,
            )
            for kind in KINDS
        },
        names={kind: champions[kind]["registry"] for kind in KINDS},
        load_scorer=partial(_load_scorer, ws.model_folder("clip")),
        resolution=ws.recipe.data.resolution,
        fit=ws.recipe.data.fit,
        quality=config.quality,
    )

    def assemble(part: Record, tables: list[pa.Table]) -> Made:
        return _assemble(ws, part, tables)

    return ShardStage(
        asset="recaptioned",
        inputs=lambda part: {"raw_pairs": part.data_version, **versions},
        settings=config.model_dump(mode="json", exclude={"workers", "num_gate_pictures"}),
        factory=factory,
        workers=config.workers,
        assemble=assemble,
    )


def _assemble(ws: Workspace, part: Record, tables: list[pa.Table]) -> Made:
    from components.captioning.recaption import shard_quality

    quality = shard_quality(tables, ws.recipe.recaption.quality)
    table = pa.concat_tables([piece.replace_schema_metadata(None) for piece in tables])
    path, digest = ws.lake.write_table(f"recaptioned/{part.shard}", table, schemas.RECAPTIONED)
    first = table.slice(0, 8).to_pylist()
    images = ws.lake.read_table(part.path, ["image"])["image"].slice(0, 8).to_pylist()
    pixels = [decode_pixels(image, SAMPLE_SIDE) for image in images]
    return Made(
        data_version=digest,
        path=path,
        num_rows=table.num_rows,
        metadata={
            **{f"{kind}_{name}": value for kind in KINDS for name, value in quality[kind].figures().items()},
            "rejected": table["rejected"].length() - table["rejected"].null_count,
            "ssc_captioner": first[0]["ssc_captioner"] if first else None,
            "dsc_captioner": first[0]["dsc_captioner"] if first else None,
            "samples": [{name: row[name] or "" for name in ("key", "caption", "ssc", "dsc")} for row in first],
        },
        pictures={"samples": captioned_grid(np.stack(pixels), [row["dsc"] or "" for row in first], scale=1)}
        if first
        else {},
        verdict="; ".join(
            f"{kind}: {verdict}"
            for kind in KINDS
            if (verdict := quality[kind].verdict(ws.recipe.recaption.quality)) is not None
        )
        or None,
    )


def build_training_set(ws: Workspace) -> Outcome:
    """The manifest of captions that may be trained on; it refuses a shard whose stored verdict is bad."""
    image_set, images = ws.read_manifest("image_set")
    shards = [entry["shard"] for entry in images["shards"]]
    records = ws.parts("recaptioned", shards)
    for entry, record in zip(images["shards"], records, strict=True):
        if record.verdict:
            raise UnfitParent(
                f"recaptioned[{record.shard}] must not be trained on: {record.verdict}. Mend the captioner, then "
                "materialize champion_captioners and recaptioned again"
            )
        if record.inputs.get("raw_pairs") != entry["data_version"]:
            raise UnfitParent(
                f"recaptioned[{record.shard}] was written for an older raw_pairs[{record.shard}]; materialize "
                "recaptioned for this shard again"
            )
    inputs = {
        "image_set": image_set.data_version,
        "recaptioned": digest_of([record.data_version for record in records]),
    }

    def make(_: str) -> Made:
        content = {
            "dataset": ws.dataset.name,
            "image_set": image_set.data_version,
            "shards": [
                {
                    "shard": record.shard,
                    "data_version": record.data_version,
                    "path": record.path,
                    "rows": record.num_rows,
                    "rejected": record.metadata["rejected"],
                }
                for record in records
            ],
        }
        path, digest = ws.write_manifest("training_set", content)
        rejected = sum(record.metadata["rejected"] for record in records)
        if rejected == sum(record.num_rows or 0 for record in records):
            raise UnfitParent(
                f"the captions of all {rejected} rows are rejected, each with its reason in recaptioned: train the "
                "captioners longer, or on more examples"
            )
        num_rows = sum(record.num_rows or 0 for record in records)
        return Made(digest, path, num_rows=num_rows, metadata={"rows": num_rows, "rejected_captions": rejected})

    return ws.materialize("training_set", inputs, None, make)


def _load_captioner(folder: Path, temperature: float, seed: int) -> Captioner:
    from components.families.captioner.sample import load_captioner
    from components.families.hub_captioner.model import SETTINGS_FILE, load_hub_captioner

    silence_libraries()
    if not (folder / SETTINGS_FILE).exists():
        return load_captioner(folder, best_device(), temperature=temperature, seed=seed)
    if temperature:
        raise ValueError(f"a hub captioner writes without sampling: set recaption.temperature from {temperature} to 0")
    return load_hub_captioner(folder, best_device())


def _load_scorer(folder: Path) -> Any:
    from components.families.clip.sample import load_clip

    return load_clip(folder, best_device(), dtype=fast_dtype(best_device()))
