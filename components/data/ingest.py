"""One shard from its source into tables: the rows that are kept, and those set aside with their reasons.

What belongs here: which row is taken, in which order, and why not. What does not: how a single picture or caption is
judged (``components.data.images``) and where tables are written (``components.data.lake``).

Reasons in ``rejected``: ``no_image``, ``unsafe_member``, ``bad_metadata``, ``bad_key``, ``bad_caption``,
``duplicate_key``, ``duplicate_image``, and for the picture itself ``too_many_bytes``, ``unsupported_format``,
``too_many_pixels``, ``too_small``, ``bad_aspect``, ``animated``, ``truncated``, ``undecodable``, ``unsupported_mode``.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
from pydantic import Field

from components.contracts import Reader, SourceRow
from components.schemas import RAW_PAIRS, REJECTED

from .images import ImageLimits, Rejection, normalise, normalise_caption

MAX_KEY_CHARS = 512
MAX_DETAIL_CHARS = 500


class IngestConfig(ImageLimits):
    """Which rows of a source are taken and how their pictures are stored."""

    max_caption_chars: int = Field(default=2000, gt=0, description="Longer captions are cut at a word boundary.")
    duplicate_images: Literal["keep", "reject_same_caption", "reject"] = Field(
        default="reject_same_caption",
        description="Equal stored pictures in one shard: keep all, keep one for each caption, or keep one.",
    )


@dataclass(frozen=True, slots=True)
class IngestResult:
    """A shard's tables in key order (``RAW_PAIRS``, ``REJECTED``) and how many rows each reason set aside."""

    table: pa.Table
    rejected: pa.Table
    reasons: Mapping[str, int]

    @property
    def num_read(self) -> int:
        """Rows that the reader gave: kept and rejected ones."""
        return self.table.num_rows + self.rejected.num_rows


def ingest_shard(
    reader: Reader, shard: int, config: IngestConfig, license: str = "", seen: Collection[str] = frozenset()
) -> IngestResult:
    """Read, check and normalise every row of a shard; a bad row is set aside and never stops the others.

    ``license`` is the data set's, for rows that name none. A key that is in ``seen`` (keys of other shards) or came
    earlier in the shard is a ``duplicate_key``; of equal pictures the one with the smallest key is kept. The same
    source and settings give the same tables. Raises :class:`components.data.sources.UnreadableShard` where the shard
    itself is broken.
    """
    shelf = _Shelf(license)
    for row in reader.read(shard):
        shelf.take(row, config, seen)
    if config.duplicate_images != "keep":
        shelf.drop_duplicate_images(with_captions=config.duplicate_images == "reject_same_caption")
    rejected = sorted(shelf.rejected, key=lambda row: (row["key"], row["source"], row["reason"]))
    return IngestResult(
        table=pa.Table.from_pylist([shelf.kept[key] for key in sorted(shelf.kept)], RAW_PAIRS.schema),
        rejected=pa.Table.from_pylist(rejected, REJECTED.schema),
        reasons=dict(sorted(Counter(row["reason"] for row in rejected).items())),
    )


@dataclass(slots=True)
class _Shelf:
    """The rows of one shard while it is read: those kept so far by key, and those rejected."""

    license: str
    kept: dict[str, dict] = field(default_factory=dict)
    rejected: list[dict[str, str]] = field(default_factory=list)

    def take(self, row: SourceRow, config: IngestConfig, seen: Collection[str]) -> None:
        """Put one row where it belongs."""
        checked = self._check(row, config, seen)
        if isinstance(checked, Rejection):
            self._reject(row.key, row.source, checked)
        else:
            self.kept[row.key] = checked

    def _check(self, row: SourceRow, config: IngestConfig, seen: Collection[str]) -> dict | Rejection:
        if row.problem is not None:
            return Rejection(*row.problem)
        if bad_key := _bad_key(row.key):
            return Rejection("bad_key", bad_key)
        if row.key in self.kept or row.key in seen:
            return Rejection(
                "duplicate_key", f"the key came before, in {'this' if row.key in self.kept else 'another'} shard"
            )
        if row.image is None:
            return Rejection("no_image", "the reader gave no picture")
        caption = normalise_caption(row.caption, config.max_caption_chars)
        if isinstance(caption, Rejection):
            return caption
        image = normalise(row.image, config)
        if isinstance(image, Rejection):
            return image
        return {
            "key": row.key,
            "image": image.data,
            "width": image.width,
            "height": image.height,
            "sha256": image.sha256,
            "source_sha256": image.source_sha256,
            "caption": caption,
            "source": _storable(row.source),
            "license": _storable(row.license or self.license),
        }

    def drop_duplicate_images(self, *, with_captions: bool) -> None:
        """Reject all but the first, in key order, of the rows with equal pictures (and equal captions)."""
        first: dict[tuple[str, str], str] = {}
        for key in sorted(self.kept):
            row = self.kept[key]
            original = first.setdefault((row["sha256"], row["caption"] if with_captions else ""), key)
            if original != key:
                del self.kept[key]
                same = "picture and caption" if with_captions else "picture"
                self._reject(key, row["source"], Rejection("duplicate_image", f"same {same} as {original}"))

    def _reject(self, key: str, source: str, rejection: Rejection) -> None:
        texts = {"key": key, "source": source, "reason": rejection.reason, "detail": rejection.detail}
        texts["detail"] = texts["detail"][:MAX_DETAIL_CHARS]
        self.rejected.append({name: _storable(text) for name, text in texts.items()})


def _bad_key(key: str) -> str | None:
    """What is wrong with a key: it joins tables and names files, so it must be plain text."""
    if not key or len(key) > MAX_KEY_CHARS:
        return f"{len(key)} characters, not 1 to {MAX_KEY_CHARS}"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in key):
        return f"{key!r} holds control characters or is not UTF-8"
    return None


def _storable(text: str) -> str:
    """Text that Arrow can hold: what is not UTF-8, as names in archives may be, is escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
