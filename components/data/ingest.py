"""One shard from its source into tables: the rows that are kept, and those set aside with their reasons.

What belongs here: which row is taken, in which order, and why not. What does not: how a single picture or caption is
judged (``components.data.images``) and where tables are written (``components.data.lake``).

Reasons in ``rejected``. Of the reader: ``no_image``, ``unsafe_member``, ``unsafe_path``, ``bad_metadata``, ``bad_key``,
``bad_caption``, ``duplicate_key``. Of the picture: ``too_many_bytes``, ``unsupported_format``, ``too_many_pixels``,
``too_small``, ``bad_aspect``, ``animated``, ``truncated``, ``undecodable``, ``unsupported_mode``, ``too_slow``,
``out_of_memory``, ``crashed``. Of the recipe's filters: ``low_clip_score``, ``filtered``. Between rows:
``duplicate_key``, ``duplicate_image``, ``near_duplicate``.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import pyarrow as pa
from pydantic import Field

from components.addresses import without_credentials
from components.contracts import Frozen, Reader, SourceRow
from components.schemas import RAW_PAIRS, REJECTED

from .images import ImageLimits, NormalisedImage, Rejection, normalise_caption
from .lake import ROWS_PER_GROUP
from .picture_process import LocalNormaliser, Normaliser
from .sources import within_time
from .storage import named_failures

MAX_KEY_CHARS = 512
MAX_DETAIL_CHARS = 500
BATCH_ROWS = 16  # whose pictures are normalised in one go
BATCH_BYTES = 8 * 2**20
FILTER_BATCH = 32  # rows that a filter judges at once
MAX_GROUP_BYTES = 64 * 2**20  # of the pictures in a row group
NO_IMAGE = Rejection("no_image", "the reader gave no picture")

DuplicateRule = Literal["keep", "reject_same_caption", "reject"]


class ClipFilter(Frozen):
    """Keeps pictures that fit their captions."""

    model: str = Field(description="Folder or hub id of a CLIP.")
    min_score: float = Field(description="Lowest CLIP score of a picture and its caption, cosine x 100.")


class ClassifierFilter(Frozen):
    """Keeps pictures by one label of an image classifier: a judge of safety, quality or anything else."""

    model: str = Field(description="Folder or hub id of a Hugging Face image-classification checkpoint.")
    label: str = Field(description="Label that is looked at.")
    min_score: float | None = Field(default=None, description="Lowest probability (or regression) that is kept.")
    max_score: float | None = Field(default=None, description="Highest one that is kept.")


class IngestConfig(ImageLimits):
    """Which rows of a source are taken and how their pictures are stored."""

    max_caption_chars: int = Field(default=2000, gt=0, description="Longer captions are cut at a word boundary.")
    max_picture_seconds: float = Field(default=60.0, gt=0, description="Longest time for decoding one picture.")
    max_shard_seconds: float = Field(default=6 * 3600.0, gt=0, description="Longest time for one shard.")
    duplicate_images: DuplicateRule = Field(
        default="reject_same_caption",
        description="Equal stored pictures: keep all, keep one for each caption, or keep one.",
    )
    clip_filter: ClipFilter | None = Field(default=None, description="Keep pictures that fit their captions.")
    classifier_filters: tuple[ClassifierFilter, ...] = Field(default=(), description="Keep pictures by their labels.")


class RowFilter(Protocol):
    """Judges rows that passed every check of their own."""

    def judge(self, images: Sequence[bytes], captions: Sequence[str]) -> list[Rejection | None]:
        """Why each row is set aside, or None; stored pictures and their clean captions."""
        ...


@dataclass(frozen=True, slots=True)
class IngestResult:
    """A shard's rows in key order, kept ones as row groups, and how many rows each reason set aside.

    Kept rows lie in an anonymous temporary file: memory holds a few hundred bytes of each.
    """

    kept: Mapping[str, _Place]
    rejected: pa.Table
    reasons: Mapping[str, int]
    spool: _Spool = field(repr=False)

    @property
    def num_kept(self) -> int:
        """Rows that passed."""
        return len(self.kept)

    @property
    def num_read(self) -> int:
        """Rows that the reader gave: kept and rejected ones."""
        return len(self.kept) + self.rejected.num_rows

    @property
    def table(self) -> pa.Table:
        """All kept rows at once (``RAW_PAIRS``); for small shards, because it holds every picture."""
        return pa.concat_tables([RAW_PAIRS.schema.empty_table(), *self.row_groups()]).combine_chunks()

    def row_groups(self) -> Iterator[pa.Table]:
        """The kept rows (``RAW_PAIRS``) in key order, a row group of the lake at a time.

        A group has at most ``ROWS_PER_GROUP`` rows, and is full at ``MAX_GROUP_BYTES`` of pictures: whoever works on a
        group holds it whole.
        """
        group: list[str] = []
        num_bytes = 0
        for key in sorted(self.kept):
            if group and (len(group) == ROWS_PER_GROUP or num_bytes + self.kept[key].image_bytes > MAX_GROUP_BYTES):
                yield self._table(group)
                group, num_bytes = [], 0
            group.append(key)
            num_bytes += self.kept[key].image_bytes
        if group:
            yield self._table(group)

    def head(self, num_rows: int) -> pa.Table:
        """The first kept rows in key order (``RAW_PAIRS``)."""
        return self._table(heapq.nsmallest(num_rows, self.kept))

    def _table(self, keys: Sequence[str]) -> pa.Table:
        places = {key: self.kept[key] for key in keys}
        rows = [
            {"key": key, "image": self.spool.image(place), **self.spool.columns(place)} for key, place in places.items()
        ]
        return pa.Table.from_pylist(rows, RAW_PAIRS.schema)


class _Place(NamedTuple):
    """Where a kept row lies in the spool, and the digest by which it equals others."""

    start: int
    image_bytes: int
    column_bytes: int
    identity: bytes


class _Spool:
    """Rows in an anonymous temporary file: a picture, then its other columns as JSON."""

    def __init__(self, folder: Path | None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # closed with the last reference
        self._folder = str(folder or tempfile.gettempdir())

    def add(self, image: bytes, columns: Mapping[str, Any], identity: bytes) -> _Place:
        """Put a row at the end."""
        told = json.dumps({**columns, "colours": columns["colours"].hex()}).encode()
        with named_failures(self._folder, "written", OSError):
            start = self._file.seek(0, os.SEEK_END)
            self._write(image + told)
        return _Place(start, len(image), len(told), identity)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]  # a disk that is nearly full takes a part

    def image(self, place: _Place) -> bytes:
        """A row's picture."""
        self._file.seek(place.start)
        return self._file.read(place.image_bytes)

    def columns(self, place: _Place) -> dict[str, Any]:
        """A row's other columns."""
        self._file.seek(place.start + place.image_bytes)
        columns = json.loads(self._file.read(place.column_bytes))
        return {**columns, "colours": bytes.fromhex(columns["colours"])}


def ingest_shard(
    reader: Reader,
    shard: int,
    config: IngestConfig,
    license: str = "",
    *,
    normaliser: Normaliser | None = None,
    filters: Sequence[RowFilter] = (),
    scratch: Path | None = None,
) -> IngestResult:
    """Read, check and normalise every row of a shard; a bad row is set aside and never stops the others.

    ``license`` is the data set's, for rows that name none. Of rows with one key the first whose picture is looked at
    has it, the others are a ``duplicate_key``; of equal pictures the one with the smallest key is kept. The same source
    and settings give the same tables. Pictures are decoded by ``normaliser`` (None: in this process, without limits of
    time and memory) and wait in a temporary file below ``scratch``. Raises
    :class:`components.data.sources.UnreadableShard` where the shard itself is broken or takes too long.
    """
    shelf = _Shelf(config, license, filters, _Spool(scratch), normaliser or LocalNormaliser(config))
    for row in within_time(lambda: reader.read(shard), reader.shards()[shard], config.max_shard_seconds):
        shelf.add(row)
    return shelf.result()


class _Shelf:
    """The rows of one shard while it is read: those kept so far by key, and those rejected."""

    def __init__(
        self,
        config: IngestConfig,
        license: str,
        filters: Sequence[RowFilter],
        spool: _Spool,
        normaliser: Normaliser,
    ) -> None:
        self.config, self.license, self.filters, self.spool = config, license, filters, spool
        self.normaliser = normaliser
        self.kept: dict[str, _Place] = {}
        self.rejected = RejectedRows()
        self._keys: set[str] = set()
        self._batch: list[tuple[SourceRow, str, bytes]] = []
        self._unjudged: list[str] = []

    def add(self, row: SourceRow) -> None:
        """Take a row: it is set aside at once, or waits until its batch is full."""
        caption = self._check(row)
        if isinstance(caption, Rejection) or row.image is None:
            self._reject(row, caption if isinstance(caption, Rejection) else NO_IMAGE)
            return
        self._batch.append((row, caption, row.image))
        if len(self._batch) == BATCH_ROWS or sum(len(image) for _, _, image in self._batch) >= BATCH_BYTES:
            self._normalise()

    def _check(self, row: SourceRow) -> str | Rejection:
        """The row's clean caption, or what is wrong with it as far as it can be told without decoding its picture."""
        if row.problem is not None:
            return Rejection(*row.problem)
        if bad_key := _bad_key(row.key):
            return Rejection("bad_key", bad_key)
        if row.key in self._keys:
            return Rejection("duplicate_key", "the key came before in this shard")
        if row.image is None:
            return NO_IMAGE
        caption = normalise_caption(row.caption, self.config.max_caption_chars)
        if isinstance(caption, str):
            self._keys.add(row.key)
        return caption

    def _reject(self, row: SourceRow, rejection: Rejection) -> None:
        self.rejected.add(row.key, row.source, rejection)

    def _normalise(self) -> None:
        """Have the waiting pictures looked at."""
        outcomes = self.normaliser.normalise_all([image for _, _, image in self._batch])
        for (row, caption, _), outcome in zip(self._batch, outcomes, strict=True):
            self._take(row, caption, outcome)
        self._batch.clear()

    def _take(self, row: SourceRow, caption: str, outcome: NormalisedImage | Rejection) -> None:
        """Put a row whose picture has been looked at where it belongs."""
        if isinstance(outcome, Rejection):
            self._reject(row, outcome)
            return
        columns = {
            "width": outcome.width,
            "height": outcome.height,
            "sha256": outcome.sha256,
            "source_sha256": outcome.source_sha256,
            "perceptual_hash": outcome.perceptual_hash,
            "colours": outcome.colours,
            "caption": caption,
            "source": storable(without_credentials(row.source)),
            "license": storable(row.license or self.license),
        }
        identity = identity_of(outcome.sha256, caption, self.config.duplicate_images)
        self.kept[row.key] = self.spool.add(outcome.data, columns, identity)
        self._unjudged.append(row.key)
        if len(self._unjudged) == FILTER_BATCH:
            self._filter()

    def result(self) -> IngestResult:
        """The shard's tables, once every row has been added."""
        self._normalise()
        self._filter()
        if self.config.duplicate_images != "keep":
            self._drop_duplicate_images()
        return IngestResult(self.kept, self.rejected.table(), self.rejected.reasons(), self.spool)

    def _filter(self) -> None:
        """Let the filters judge the rows that have come since the last time."""
        for one in self.filters:
            places = {key: self.kept[key] for key in self._unjudged if key in self.kept}
            if not places:
                break
            captions = [self.spool.columns(place)["caption"] for place in places.values()]
            verdicts = one.judge([self.spool.image(place) for place in places.values()], captions)
            for key, verdict in zip(places, verdicts, strict=True):
                if verdict is not None:
                    self._set_aside(key, verdict)
        self._unjudged.clear()

    def _drop_duplicate_images(self) -> None:
        """Reject all but the first, in key order, of the rows with equal pictures (and equal captions)."""
        first: dict[bytes, str] = {}
        for key in sorted(self.kept):
            original = first.setdefault(self.kept[key].identity, key)
            if original != key:
                self._set_aside(key, duplicate_of(original, self.config.duplicate_images))

    def _set_aside(self, key: str, rejection: Rejection) -> None:
        self.rejected.add(key, self.spool.columns(self.kept.pop(key))["source"], rejection)


class RejectedRows:
    """Rows that were set aside, packed as they come, because there may be as many as a shard holds."""

    def __init__(self) -> None:
        self._packed: list[pa.Table] = []
        self._rows: list[dict[str, str]] = []
        self._reasons: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._reasons.total()

    def add(self, key: str, source: str, rejection: Rejection) -> None:
        """Set a row aside; texts lose their credentials, are cut and escaped such that the table can hold them."""
        texts = {"source": source, "detail": rejection.detail}
        texts = {name: without_credentials(text)[:MAX_DETAIL_CHARS] for name, text in texts.items()}
        texts |= {"key": key[:MAX_KEY_CHARS], "reason": rejection.reason}
        self._rows.append({name: storable(text) for name, text in texts.items()})
        self._reasons[rejection.reason] += 1
        if len(self._rows) == 4096:
            self._pack()

    def table(self) -> pa.Table:
        """The rows (``REJECTED``) in the order of their keys."""
        self._pack()
        table = pa.concat_tables([REJECTED.schema.empty_table(), *self._packed]).combine_chunks()
        return table.sort_by([(name, "ascending") for name in REJECTED.schema.names])

    def reasons(self) -> dict[str, int]:
        """How many rows each reason set aside, by reason in order."""
        return dict(sorted(self._reasons.items()))

    def _pack(self) -> None:
        self._packed.append(pa.Table.from_pylist(self._rows, REJECTED.schema))
        self._rows.clear()


def identity_of(sha256: str, caption: str, rule: DuplicateRule) -> bytes:
    """What two rows share where one of them is a copy by the rule: the picture, or picture and caption."""
    told = f"{sha256}\0{caption}" if rule == "reject_same_caption" else sha256
    return hashlib.blake2b(told.encode(), digest_size=16).digest()


def duplicate_of(original: str, rule: DuplicateRule) -> Rejection:
    """Why a row with an equal picture is set aside."""
    same = "picture and caption" if rule == "reject_same_caption" else "picture"
    return Rejection("duplicate_image", f"same {same} as {original}")


def _bad_key(key: str) -> str | None:
    """What is wrong with a key: it joins tables and names files, so it must be plain text."""
    if not key or len(key) > MAX_KEY_CHARS:
        return f"{len(key)} characters, not 1 to {MAX_KEY_CHARS}"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in key):
        return f"{key!r} holds control characters or is not UTF-8"
    return None


def storable(text: str) -> str:
    """Text that Arrow can hold: what is not UTF-8, as names in archives may be, is escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
