"""From manifests to the rows that a family learns from.

What belongs here: joining pictures, captions, latents and ground truth in one order, and the train/evaluation split.
What does not: the memory-mapped files (``data.scratch``) and how captions are mixed (a family's sampling).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from components.contracts import Rows
from components.data.lake import Record
from components.data.picked import PickedArray, PickedTexts
from components.data.scratch import Scratch, num_rows_of

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

    Opted-out rows are in neither split.
    Texts: ``caption`` and ``ssc_example``/``dsc_example`` always; ``ssc``/``dsc`` with recaptions (whose rejected rows
    are left out of the training split); ``truth_ssc``/``truth_dsc`` and scenes with truth, where the data set has it.
    """
    manifest = ws.read_manifest("image_set")[1]
    parts = _parts_of(ws, "raw_pairs", manifest)
    data, scratch = ws.recipe.data, Scratch(ws.lake, ws.scratch)
    raw = scratch.texts(parts, ["key", "caption"])
    everything = np.arange(raw.num_rows)
    keys = PickedTexts(raw["key"], everything)
    texts: dict[str, Sequence[str | None]] = {"caption": PickedTexts(raw["caption"], everything)}
    for kind in ("ssc", "dsc"):
        examples = manifest["examples"].get(kind, {})
        texts[f"{kind}_example"] = PickedTexts(_given(keys, examples), everything)
    is_usable = np.ones(len(keys), dtype=bool)
    if with_recaptions:
        recaptioned = scratch.texts(
            _parts_of(ws, "recaptioned", ws.read_manifest("training_set")[1]), ["key", "ssc", "dsc", "rejected"]
        )
        _check_same_keys(raw["key"], recaptioned["key"])
        texts |= {kind: PickedTexts(recaptioned[kind], everything) for kind in ("ssc", "dsc")}
        is_usable &= recaptioned["rejected"].is_null().to_numpy()
    scenes = _truth(ws, keys, texts) if with_truth and ws.dataset.has_ground_truth else None
    rows = Rows(
        keys=cast("Sequence[str]", keys),
        pixels=cast("np.ndarray", PickedArray(scratch.pixels(parts, data.resolution, data.fit), everything)),
        texts=texts,
        latents=_latents(ws, scratch, parts) if with_latents else None,
        scenes=scenes,
    )
    opted_out = set(manifest["opted_out"])
    is_evaluation = np.empty(len(keys), dtype=bool)
    is_allowed = _kept(manifest)
    for number, key in enumerate(rows.keys):
        is_evaluation[number] = ws.dataset.is_held_out(key)
        is_allowed[number] &= key not in opted_out
    is_train, is_evaluation = ~is_evaluation & is_usable & is_allowed, is_evaluation & is_allowed
    return SplitRows(subset(rows, np.flatnonzero(is_train)), subset(rows, np.flatnonzero(is_evaluation)))


def subset(rows: Rows, chosen: np.ndarray) -> Rows:
    """The chosen rows in the given order (positions, int64); what is memory-mapped stays so."""
    return Rows(
        keys=_chosen(rows.keys, chosen),
        pixels=_chosen(rows.pixels, chosen),
        texts={kind: _chosen(column, chosen) for kind, column in rows.texts.items()},
        latents=None if rows.latents is None else _chosen(rows.latents, chosen),
        scenes=None if rows.scenes is None else _chosen(rows.scenes, chosen),
    )


def _chosen(column: Any, chosen: np.ndarray) -> Any:
    if isinstance(column, PickedArray | PickedTexts):
        return column.subset(chosen)
    return column[chosen] if isinstance(column, np.ndarray) else [column[row] for row in chosen.tolist()]


def in_memory(rows: Rows, count: int) -> Rows:
    """The first rows, read into plain arrays and lists."""
    first = subset(rows, np.arange(min(len(rows), count)))
    return Rows(
        keys=list(first.keys),
        pixels=np.asarray(first.pixels),
        texts={kind: list(column) for kind, column in first.texts.items()},
        latents=None if first.latents is None else np.asarray(first.latents),
        scenes=first.scenes,
    )


def with_text(rows: Rows, kind: str) -> Rows:
    """Only the rows that have a text of this kind."""
    return subset(rows, np.array([i for i, text in enumerate(rows.texts[kind]) if text is not None], dtype=np.int64))


def _kept(manifest: Mapping[str, Any]) -> np.ndarray:
    """Which rows of the image set's parts are no copies of others, bool (N,)."""
    pieces = [np.zeros(0, dtype=bool)]
    for entry in manifest["shards"]:
        piece = np.ones(entry["rows"], dtype=bool)
        piece[entry.get("set_aside", [])] = False
        pieces.append(piece)
    return np.concatenate(pieces)


def _parts_of(ws: Workspace, asset: str, manifest: Mapping[str, Any]) -> list[Record]:
    return [ws.lake.record_of(asset, "table", entry["data_version"], entry["shard"]) for entry in manifest["shards"]]


def _given(keys: PickedTexts, texts: Mapping[str, str]) -> pa.ChunkedArray:
    """A column with the texts of some keys and null for all others."""
    return pa.chunked_array([pa.array((texts.get(str(key)) for key in keys), pa.large_string())])


def _check_same_keys(expected: pa.ChunkedArray, found: pa.ChunkedArray) -> None:
    if found.equals(expected):
        return
    missing = set(expected.to_pylist()) - set(found.to_pylist())
    what = f"lacks {len(missing)} rows of the image set, for example {min(missing)!r}" if missing else "has other rows"
    raise UnfitParent(f"recaptioned {what}; materialize recaptioned for all shards and then training_set again")


def _latents(ws: Workspace, scratch: Scratch, parts: Sequence[Record]) -> np.ndarray:
    encoded = [ws.parent("latents", part.shard) for part in parts]
    for part, record in zip(parts, encoded, strict=True):
        if record.inputs.get("raw_pairs") != part.data_version:
            raise UnfitParent(f"latents[{part.shard}] were encoded from other pictures; materialize latents again")
    if num_rows_of(encoded) != num_rows_of(parts):
        raise UnfitParent(
            f"latents hold {num_rows_of(encoded)} rows, the image set {num_rows_of(parts)}; materialize latents again"
        )
    latents = scratch.latents(encoded)
    return cast("np.ndarray", PickedArray(latents, np.arange(len(latents))))


def _truth(ws: Workspace, keys: PickedTexts, texts: dict[str, Sequence[str | None]]) -> list[Any]:
    from components.data import scenes as world

    seed, options = ws.dataset.scene_seed, ws.dataset.scene_options
    scenes = [world.scene_for(world.index_of(str(key)), seed, options) for key in keys]
    texts["truth_ssc"] = [world.ssc(scene) for scene in scenes]
    texts["truth_dsc"] = [world.dsc(scene) for scene in scenes]
    return scenes
