"""From manifests to the rows that a family learns from.

What belongs here: joining pictures, captions, latents and ground truth in one order, and the train/evaluation split.
What does not: how pictures are decoded (``data.pixels``) and how captions are mixed (a family's sampling).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.contracts import Rows
from components.data.catalog import split_of
from components.data.lake import Record
from components.data.pixels import PixelCache

from .workspace import UnfitParent, Workspace


@dataclass(frozen=True, slots=True)
class SplitRows:
    """The rows to learn from and the rows that no model ever learns from."""

    train: Rows
    evaluation: Rows


def load_rows(
    ws: Workspace, *, with_recaptions: bool = False, with_latents: bool = False, with_truth: bool = False
) -> SplitRows:
    """All rows of the image set (or, with recaptions, of the training set), split by the hash of their keys.

    Texts: ``caption`` and ``ssc_example``/``dsc_example`` always; ``ssc``/``dsc`` with recaptions (whose rejected rows
    are left out of the training split); ``truth_ssc``/``truth_dsc`` and scenes with truth, where the data set has it.
    """
    manifest = ws.read_manifest("image_set")[1]
    parts = [
        ws.lake.record_of("raw_pairs", "table", entry["data_version"], entry["shard"]) for entry in manifest["shards"]
    ]
    data = ws.recipe.data
    keys, pixels = PixelCache(ws.scratch).open(ws.lake, parts, data.resolution, data.fit)
    texts: dict[str, Sequence[str | None]] = {"caption": _column(ws, parts, "caption")}
    for kind in ("ssc", "dsc"):
        examples = manifest["examples"].get(kind, {})
        texts[f"{kind}_example"] = [examples.get(key) for key in keys]
    is_usable = np.ones(len(keys), dtype=bool)
    if with_recaptions:
        training_set = ws.read_manifest("training_set")[1]
        recaptioned = [
            ws.lake.record_of("recaptioned", "table", entry["data_version"], entry["shard"])
            for entry in training_set["shards"]
        ]
        for kind in ("ssc", "dsc"):
            texts[kind] = _joined(keys, _column(ws, recaptioned, "key"), _column(ws, recaptioned, kind))
        rejected = _joined(keys, _column(ws, recaptioned, "key"), _column(ws, recaptioned, "rejected"))
        is_usable &= np.array([reason is None for reason in rejected])
    scenes = _truth(ws, keys, texts) if with_truth and ws.dataset.has_ground_truth else None
    latents = _latents(ws, parts, keys) if with_latents else None
    is_evaluation = np.array([split_of(key, ws.dataset.evaluation_fraction) == "evaluation" for key in keys])
    opted_out = set(manifest["opted_out"])
    is_train = ~is_evaluation & is_usable & np.array([key not in opted_out for key in keys])
    everything = Rows(keys, pixels, texts, latents, scenes)
    return SplitRows(subset(everything, np.flatnonzero(is_train)), subset(everything, np.flatnonzero(is_evaluation)))


def subset(rows: Rows, chosen: np.ndarray) -> Rows:
    """The chosen rows in the given order (positions, int64)."""
    pick: list[int] = chosen.tolist()
    return Rows(
        keys=[rows.keys[i] for i in pick],
        pixels=rows.pixels[chosen],
        texts={kind: [column[i] for i in pick] for kind, column in rows.texts.items()},
        latents=None if rows.latents is None else rows.latents[chosen],
        scenes=None if rows.scenes is None else [rows.scenes[i] for i in pick],
    )


def with_text(rows: Rows, kind: str) -> Rows:
    """Only the rows that have a text of this kind."""
    return subset(rows, np.array([i for i, text in enumerate(rows.texts[kind]) if text is not None], dtype=np.int64))


def _column(ws: Workspace, parts: Sequence[Record], name: str) -> list[Any]:
    return [value for part in parts for value in ws.lake.read_table(part.path, [name])[name].to_pylist()]


def _joined(keys: Sequence[str], other_keys: Sequence[str], values: Sequence[Any]) -> list[Any]:
    by_key: Mapping[str, Any] = dict(zip(other_keys, values, strict=True))
    missing = [key for key in keys if key not in by_key]
    if missing:
        raise UnfitParent(
            f"recaptioned lacks {len(missing)} rows of the image set, for example {missing[0]!r}; materialize "
            "recaptioned for all shards and then training_set again"
        )
    return [by_key[key] for key in keys]


def _latents(ws: Workspace, parts: Sequence[Record], keys: Sequence[str]) -> np.ndarray:
    columns = []
    for part in parts:
        assert part.shard is not None
        record = ws.parent("latents", part.shard)
        if record.inputs.get("raw_pairs") != part.data_version:
            raise UnfitParent(f"latents[{part.shard}] were encoded from other pictures; materialize latents again")
        table = ws.lake.read_table(record.path, ["key", "latents"])
        flat = table["latents"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        columns.append(flat.reshape(table.num_rows, *record.metadata["shape"]))
    latents = np.concatenate(columns)
    if len(latents) != len(keys):
        raise UnfitParent(f"latents hold {len(latents)} rows, the image set {len(keys)}; materialize latents again")
    return latents


def _truth(ws: Workspace, keys: Sequence[str], texts: dict[str, Sequence[str | None]]) -> list[Any]:
    from components.data import scenes as world

    seed, options = ws.dataset.scene_seed, ws.dataset.scene_options
    scenes = [world.scene_for(world.index_of(key), seed, options) for key in keys]
    texts["truth_ssc"] = [world.ssc(scene) for scene in scenes]
    texts["truth_dsc"] = [world.dsc(scene) for scene in scenes]
    return scenes
