"""``recaptioned``, ``training_set``: what the champions wrote, and what of it may be used.

What belongs here: joining captioner models, the worker pool and the records. What does not: writing a caption
(``families.captioner``), judging it (``captioning.quality``), choosing champions (``champions``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image

from components import schemas
from components.captioning.recaption import KINDS
from components.contracts import Captioner
from components.data.lake import Record, digest_of
from components.data.pictures import captioned_grid
from components.data.pixels import decode_pixels
from components.execution.device import best_device, fast_dtype
from components.families.hub_captioner.config import SETTINGS_FILE as HUB_SETTINGS

from .progress import silence_libraries
from .shards import ShardResult, ShardStage, make_shards
from .splits import split_figures
from .versions import CODE_VERSIONS
from .workspace import Made, Outcome, UnfitParent, Workspace

if TYPE_CHECKING:
    from components.captioning.quality import ShardQuality

    from .reuse import CaptionKey

log = logging.getLogger(__name__)
SAMPLE_SIDE = 128  # of the pictures shown with a shard, in pixels
NUM_SHOWN = 8


def load_kind(ws: Workspace, kind: str) -> Captioner:
    """The current candidate captioner of a kind."""
    return load_captioner(
        ws.model_folder(f"{kind}_captioner"), ws.recipe.recaption.temperature, ws.recipe.recaption.seed
    )


def recaption(ws: Workspace, shards: Sequence[str]) -> Iterator[ShardResult]:
    """Write SSC and DSC for each shard with the champion captioners."""
    yield from make_shards(ws, recaption_stage(ws), shards)


def recaption_stage(ws: Workspace) -> ShardStage:
    """How ``recaptioned`` is made from a shard of raw_pairs: only what no earlier version holds is written."""
    from components.captioning.recaption import CaptionWorker

    from .reuse import items_to_write

    champions = ws.read_manifest("champion_captioners")[1]
    clip = ws.parent("clip")
    config, data = ws.recipe.recaption, ws.recipe.data
    assembly = _Assembly(ws, champions, caption_keys(ws, champions, clip.data_version))
    return ShardStage(
        asset="recaptioned",
        inputs=partial(caption_inputs, champions=champions, clip=clip),
        settings=caption_settings(ws),
        items=lambda part: items_to_write(ws, part, assembly.keys),
        factory=CaptionWorker(
            captioners={
                kind: partial(
                    load_captioner,
                    ws.lake.fetch_folder(champions[kind]["path"], ws.scratch),
                    config.temperature,
                    config.seed,
                )
                for kind in KINDS
            },
            load_scorer=partial(load_scorer, ws.model_folder("clip")),
            mean_picture=champions["mean_picture"],
            resolution=data.resolution,
            fit=data.fit,
            batch_multiple=config.batch_multiple,
        ),
        workers=config.workers,
        assemble=assembly.assemble,
    )


def caption_inputs(part: Record, champions: Mapping[str, Any], clip: Record) -> dict[str, str]:
    """What a shard's captions are made from: its rows, the champions' manifest, the CLIP that scores them."""
    return {
        "raw_pairs": part.data_version,
        "champion_captioners": digest_of(champions),
        "clip": clip.data_version,
    }


def caption_settings(ws: Workspace) -> dict[str, Any]:
    """The part of the recipe that decides a shard's captions."""
    return ws.recipe.recaption.model_dump(mode="json", exclude={"workers", "num_gate_pictures", "num_golden_pictures"})


def caption_keys(ws: Workspace, champions: Mapping[str, Any], clip: str) -> dict[str, CaptionKey]:
    """What decides captions and scores now; the picture's sha256 is the rest of the key."""
    from .reuse import CaptionKey

    config, data = ws.recipe.recaption, ws.recipe.data
    sampling = {"temperature": config.temperature, "seed": config.seed if config.temperature else None}
    pixels = [CODE_VERSIONS["recaptioned"], data.resolution, data.fit, config.batch_multiple]
    score = digest_of([pixels, clip, champions["mean_picture"]])
    return {
        kind: CaptionKey(digest_of([pixels, kind, champions[kind]["data_version"], sampling]), score) for kind in KINDS
    }


class _Assembly:
    """Puts shards together under one set of champions."""

    def __init__(self, ws: Workspace, champions: Mapping[str, Any], keys: Mapping[str, CaptionKey]) -> None:
        self.ws, self.champions, self.keys = ws, champions, keys

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """The words that trained captioners can know."""
        return frozenset(self.ws.lake.read_bytes(self.champions["vocabulary"]).decode().split("\n"))

    def assemble(self, part: Record, results: list[pa.Table]) -> Made:
        """A shard's table, its statistics and its verdict."""
        from components.captioning.recaption import join_kind, recaptioned_table

        from .reuse import KEYS, kept_captions

        ws, config = self.ws, self.ws.recipe.recaption.quality
        assert part.shard is not None
        rows = ws.lake.read_table(part.path, ["key", "sha256", "caption"])
        kept = kept_captions(ws, part.shard, self.keys)
        digests = rows["sha256"].to_pylist()
        joined = {kind: join_kind(kind, digests, kept[kind].rows, results, config) for kind in KINDS}
        table = recaptioned_table(rows, joined, {kind: self.champions[kind]["registry"] for kind in KINDS})
        path, digest = ws.lake.write_table(f"recaptioned/{part.shard}", table, schemas.RECAPTIONED)
        quality = {
            kind: one.quality(config, self.vocabulary if self.champions[kind]["is_trained"] else None)
            for kind, one in joined.items()
        }
        complaints = self._complaints(part.shard, quality)
        counts = {f"{kind}_written": one.num_written for kind, one in joined.items()}
        counts |= {f"{kind}_reused": len(digests) - one.num_written for kind, one in joined.items()}
        log.info("recaptioned[%s]: %s", part.shard, ", ".join(f"{name} {count}" for name, count in counts.items()))
        first = table.slice(0, NUM_SHOWN).to_pylist()
        return Made(
            data_version=digest,
            path=path,
            num_rows=table.num_rows,
            metadata={
                **{f"{kind}_{name}": value for kind in KINDS for name, value in quality[kind].figures().items()},
                **counts,
                "rejected": table.num_rows - table["rejected"].null_count,
                **{f"{kind}_captioner": self.champions[kind]["registry"] for kind in KINDS},
                "complaints": complaints,
                KEYS: {kind: key.as_json() for kind, key in self.keys.items()},
                "statistics": {kind: one.as_json() for kind, one in quality.items()},
                "samples": [{name: row[name] or "" for name in ("key", "caption", "ssc", "dsc")} for row in first],
            },
            pictures={"samples": self._sample(part, [row["dsc"] or "" for row in first])} if first else {},
            verdict="; ".join(message for messages in complaints.values() for message in messages) or None,
        )

    def _complaints(self, shard: str, quality: Mapping[str, ShardQuality]) -> dict[str, list[str]]:
        """By caption test: what it has against the shard, compared also with its last version fit to train on."""
        from components.captioning.quality import ShardQuality

        versions = self.ws.lake.versions("recaptioned", "table", shard)
        last = next((one for one in versions if not one.verdict and "statistics" in one.metadata), None)
        found: dict[str, list[str]] = {}
        for kind, one in quality.items():
            previous = ShardQuality(**last.metadata["statistics"][kind]) if last else None
            for test, message in one.complaints(self.ws.recipe.recaption.quality, previous=previous):
                found.setdefault(test, []).append(f"{kind}: {message}")
        return found

    def _sample(self, part: Record, captions: Sequence[str]) -> Image.Image:
        images = self.ws.lake.read_table(part.path, ["image"])["image"].slice(0, len(captions)).to_pylist()
        return captioned_grid(np.stack([decode_pixels(image, SAMPLE_SIDE) for image in images]), captions, scale=1)


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
        metadata = {
            "rows": num_rows,
            "raw_rows": sum(entry["rows"] for entry in images["shards"]),
            "rejected_captions": rejected,
            **split_figures(ws, images, [record.path for record in records]),
        }
        return Made(digest, path, num_rows=num_rows, metadata=metadata)

    return ws.materialize("training_set", inputs, None, make)


def load_captioner(folder: Path, temperature: float, seed: int) -> Captioner:
    """The captioner of a model folder, of whichever family wrote it."""
    silence_libraries()
    load = next((load for file, load in CAPTIONERS.items() if (folder / file).exists()), _load_trained)
    return load(folder, temperature, seed)


def _load_trained(folder: Path, temperature: float, seed: int) -> Captioner:
    from components.families.captioner.sample import load_captioner

    return load_captioner(folder, best_device(), temperature=temperature, seed=seed)


def _load_from_hub(folder: Path, temperature: float, seed: int) -> Captioner:
    from components.families.hub_captioner.model import load_hub_captioner

    if temperature:
        raise ValueError(f"a hub captioner writes without sampling: set recaption.temperature from {temperature} to 0")
    return load_hub_captioner(folder, best_device())


CAPTIONERS: dict[str, Callable[[Path, float, int], Captioner]] = {HUB_SETTINGS: _load_from_hub}  # by a file of theirs


def load_scorer(folder: Path) -> Any:
    """The CLIP that scores captions."""
    from components.families.clip.sample import load_clip

    return load_clip(folder, best_device(), dtype=fast_dtype(best_device()))
