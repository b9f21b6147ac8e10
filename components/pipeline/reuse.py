"""Which captions of a shard are in the lake already, so that only what is missing is written.

What belongs here: the keys under which captions and their scores count as the same, and finding them. What does not:
writing captions (``captioning.recaption``) and deciding that nothing has changed at all (``workspace``).

A caption is known by its picture's sha256 in the newest version of the same shard's table whose captions of that kind
were written under the same key: captioner, sampling, pixels. Older captioners are found again that way (a champion that
comes back writes nothing); a picture that moves to another shard is not, and is captioned there once more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.captioning.recaption import KINDS, Written
from components.data.lake import ROWS_PER_GROUP, Record

from .workspace import Workspace

KEYS = "written_under"  # of a record's metadata: the keys by kind


@dataclass(frozen=True, slots=True)
class CaptionKey:
    """What decides a caption beside the picture, and what decides its scores beside the caption; both are digests."""

    caption: str
    score: str

    def as_json(self) -> dict[str, str]:
        """The key as a record keeps it."""
        return {"caption": self.caption, "score": self.score}


@dataclass(frozen=True, slots=True)
class Kept:
    """Captions of one kind that need not be written, by the sha256 of their pictures.

    ``uri`` is the part that holds them. Where ``is_scored`` is False another CLIP scored them: their scores are None.
    """

    rows: Mapping[str, Written] = field(default_factory=dict)
    uri: str = ""
    is_scored: bool = True


def kept_captions(ws: Workspace, shard: str, keys: Mapping[str, CaptionKey]) -> dict[str, Kept]:
    """By kind, what the lake holds for a shard under these keys; nothing where the run is forced."""
    kept = {kind: Kept() for kind in keys}
    missing = {} if ws.is_forced else dict(keys)
    for record in ws.lake.versions("recaptioned", "table", shard):
        for kind, key in list(missing.items()):
            under = record.metadata.get(KEYS, {}).get(kind, {})
            if under.get("caption") == key.caption and ws.lake.exists(record.path):
                kept[kind] = _read(ws, record, kind, is_scored=under["score"] == key.score)
                del missing[kind]
        if not missing:
            break
    return kept


def items_to_write(ws: Workspace, part: Record, keys: Mapping[str, CaptionKey]) -> list[dict[str, Any]]:
    """What :class:`components.captioning.recaption.CaptionWorker` must be given for a part of raw_pairs."""
    assert part.shard is not None
    kept = kept_captions(ws, part.shard, keys)
    digests = ws.lake.read_table(part.path, ["sha256"])["sha256"].to_pylist()
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = defaultdict(list)
    for row, digest in enumerate(digests):
        writes = tuple(kind for kind in KINDS if digest not in kept[kind].rows)
        rescores = tuple(kind for kind in KINDS if kind not in writes and not kept[kind].is_scored)
        if writes or rescores:
            groups[writes, rescores].append(row)
    return [
        {
            "uri": ws.lake.uri(part.path),
            "rows": piece,
            "num_rows": len(piece),
            "writes": writes,
            "rescores": {kind: kept[kind].uri for kind in rescores},
        }
        for (writes, rescores), rows in groups.items()
        for piece in (rows[start : start + ROWS_PER_GROUP] for start in range(0, len(rows), ROWS_PER_GROUP))
    ]


def _read(ws: Workspace, record: Record, kind: str, *, is_scored: bool) -> Kept:
    names = ["sha256", kind, f"{kind}_score", f"{kind}_shuffled"]
    columns = [column.to_pylist() for column in ws.lake.read_table(record.path, names).select(names).columns]
    rows: dict[str, Written] = {
        digest: (caption, score, shuffled) if is_scored else (caption, None, None)
        for digest, caption, score, shuffled in zip(*columns, strict=True)
        if caption is not None  # a row whose caption failed is tried again
    }
    return Kept(rows, ws.lake.uri(record.path), is_scored)
