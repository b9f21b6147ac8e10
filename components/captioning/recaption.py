"""Recaptioning: synthetic captions and their CLIP scores for some rows of a shard, and the shard's table put together.

What belongs here: the worker that an executor runs, and joining what it wrote with captions that were there already.
What does not: loading a captioner (the worker is given functions that do), which rows must be written and where the
table is kept (``components.pipeline``).
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.contracts import Captioner
from components.data.pixels import Fit, decode_pixels
from components.data.storage import open_file
from components.schemas import RECAPTIONED

from .quality import QualityConfig, ShardQuality, problem_of, quality_of

log = logging.getLogger(__name__)

KINDS = ("ssc", "dsc")
Written = tuple[str | None, float | None, float | None]  # a caption, its CLIP score and its shuffled CLIP score


class Scorer(Protocol):
    """CLIP: unit embeddings of pictures and texts."""

    def image_embeds(self, pixels: np.ndarray) -> np.ndarray:
        """Float32 (N, D), unit length, of uint8 (N, H, W, 3)."""
        ...

    def text_embeds(self, texts: Sequence[str]) -> np.ndarray:
        """Float32 (N, D), unit length."""
        ...


@dataclass(frozen=True, slots=True)
class CaptionWorker:
    """Writes captions; a factory for :meth:`components.contracts.Executor.map`.

    ``captioners`` and ``load_scorer`` load models, each once per worker and only where it is needed. ``mean_picture``
    (D,) is the mean CLIP embedding of many pictures. ``batch_multiple``: a batch is filled up to a multiple of so many
    rows, so that what is written for a picture does not depend on how many others come with it.

    Items are ``{"uri": a part of raw_pairs, "rows": positions in it, "writes": kinds, "rescores": {kind: a part of
    recaptioned whose captions are kept}}``. Results hold a column ``row`` and, for each kind of the item, ``<kind>``,
    ``<kind>_score``, ``<kind>_shuffled``; for kinds that were written also ``<kind>_failure``.
    """

    captioners: Mapping[str, Callable[[], Captioner]]
    load_scorer: Callable[[], Scorer]
    mean_picture: Sequence[float]
    resolution: int
    fit: Fit
    batch_multiple: int = 32

    def __call__(self) -> "_Recaptioning":
        """A worker without models, which come with its first item."""
        return _Recaptioning(self)


class _Recaptioning:
    """The loaded models, at work on one item after the other."""

    def __init__(self, worker: CaptionWorker) -> None:
        self.worker = worker
        self.captioners: dict[str, Captioner] = {}
        self.scorer: Scorer | None = None

    def __call__(self, item: Mapping[str, Any]) -> pa.Table:
        rows = _rows_at(item["uri"], item["rows"], ["sha256", "image"])
        worker, digests = self.worker, rows["sha256"].to_pylist()
        pixels = np.stack([decode_pixels(image.as_py(), worker.resolution, worker.fit) for image in rows["image"]])
        padded = _filled_up(pixels, worker.batch_multiple)
        texts: dict[str, list[str | None]] = {}
        failures: dict[str, list[str | None]] = {}
        for kind in item["writes"]:
            texts[kind], failures[kind] = self._write(kind, padded, digests)
        for kind, uri in item["rescores"].items():
            kept = _column_by_digest(uri, kind)
            texts[kind] = [kept[digest] for digest in digests]
        if self.scorer is None:
            self.scorer = worker.load_scorer()
        images = self.scorer.image_embeds(padded)[: len(digests)]
        columns: dict[str, Any] = {"row": pa.array(list(item["rows"]), pa.int64())}
        for kind, captions in texts.items():
            embeds = self.scorer.text_embeds([caption or "" for caption in captions])
            own, shuffled = own_and_shuffled_scores(images, embeds, np.asarray(worker.mean_picture, np.float32))
            is_missing = np.array([caption is None for caption in captions])
            columns |= {
                kind: pa.array(captions, pa.string()),
                f"{kind}_score": pa.array(own, pa.float32(), mask=is_missing),
                f"{kind}_shuffled": pa.array(shuffled, pa.float32(), mask=is_missing),
            }
        columns |= {f"{kind}_failure": pa.array(each, pa.string()) for kind, each in failures.items()}
        return pa.table(columns)

    def _write(
        self, kind: str, padded: np.ndarray, digests: Sequence[str]
    ) -> tuple[list[str | None], list[str | None]]:
        """Captions and failures of the first ``len(digests)`` pictures: of each row one of the two is None.

        Sampled captions draw from a stream for each picture's digest, so that the same picture gets the same caption
        under any key. Where a batch fails, its rows are tried one by one; where all of them fail and an empty picture
        does too, the fault is the captioner's and is raised.
        """
        if kind not in self.captioners:
            self.captioners[kind] = self.worker.captioners[kind]()
        captioner = self.captioners[kind]
        streams = [*digests, *[digests[0]] * (len(padded) - len(digests))]
        try:
            return list(captioner.caption(padded, streams)[: len(digests)]), [None] * len(digests)
        except Exception:  # whatever a captioner meets: one picture must not cost its neighbours their captions
            log.exception("%d pictures could not be captioned together (%s): each is tried alone", len(digests), kind)
        each = [self._alone(captioner, padded[number], digest) for number, digest in enumerate(digests)]
        if all(caption is None for caption, _ in each):
            captioner.caption(np.full_like(padded, 255), streams)
        return [caption for caption, _ in each], [failure for _, failure in each]

    def _alone(self, captioner: Captioner, picture: np.ndarray, digest: str) -> tuple[str | None, str | None]:
        """The caption or the failure of one picture."""
        padded = _filled_up(picture[None], self.worker.batch_multiple)
        try:
            return captioner.caption(padded, [digest] * len(padded))[0], None
        except Exception as error:  # becomes the reason of the row
            return None, f"failed: {type(error).__name__}: {error}"


def own_and_shuffled_scores(
    images: np.ndarray, texts: np.ndarray, mean_picture: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """CLIP scores (cosine x 100) of each text with its own picture, and their mean over many other pictures.

    ``images``, ``texts``: unit embeddings (N, D). ``mean_picture``: (D,) or, one for each text, (N, D). The cosine with
    a mean of unit embeddings is the mean of the cosines: what a text scores against a shuffled picture, without the
    noise of any one shuffle.
    """
    return 100 * (images * texts).sum(axis=1), 100 * (texts * mean_picture).sum(axis=1)


def measure_quality(
    captions: Sequence[str],
    pixels: np.ndarray,
    scorer: Scorer,
    config: QualityConfig,
    vocabulary: Collection[str] | None = None,
) -> ShardQuality:
    """Quality of captions of these pictures, uint8 (N, H, W, 3), N >= 2; the other pictures are the other N - 1."""
    images, texts = scorer.image_embeds(pixels), scorer.text_embeds(captions)
    others = (images.sum(axis=0) - images) / (len(images) - 1)
    own, shuffled = own_and_shuffled_scores(images, texts, others)
    return quality_of(captions, own.tolist(), shuffled.tolist(), config, vocabulary=vocabulary)


@dataclass(frozen=True, slots=True)
class JoinedKind:
    """One kind of caption for every row of a shard, in the shard's order, and how many of them were written now."""

    captions: Sequence[str | None]
    scores: Sequence[float | None]
    shuffled: Sequence[float | None]
    problems: Sequence[str | None]
    num_written: int

    def quality(self, config: QualityConfig, vocabulary: Collection[str] | None) -> ShardQuality:
        """Statistics of all rows."""
        own, others = ([one for one in each if one is not None] for each in (self.scores, self.shuffled))
        return quality_of(self.captions, own, others, config, problems=self.problems, vocabulary=vocabulary)


def join_kind(
    kind: str,
    digests: Sequence[str],
    kept: Mapping[str, Written],
    results: Sequence[pa.Table],
    config: QualityConfig,
) -> JoinedKind:
    """What the workers wrote, and for all other rows what is kept under the digest of the row's picture."""
    rows: list[Written] = [kept.get(digest, (None, None, None)) for digest in digests]
    failures: dict[int, str | None] = {}
    for table in results:
        if kind in table.column_names:
            numbers = table["row"].to_pylist()
            names = (kind, f"{kind}_score", f"{kind}_shuffled")
            for number, *row in zip(numbers, *(table[name].to_pylist() for name in names), strict=True):
                rows[number] = (row[0], row[1], row[2])
            if f"{kind}_failure" in table.column_names:
                failures |= dict(zip(numbers, table[f"{kind}_failure"].to_pylist(), strict=True))
    captions = [caption for caption, _, _ in rows]
    return JoinedKind(
        captions=captions,
        scores=[score for _, score, _ in rows],
        shuffled=[score for _, _, score in rows],
        problems=[failures.get(number) or problem_of(caption or "", config) for number, caption in enumerate(captions)],
        num_written=len(failures),
    )


def recaptioned_table(rows: pa.Table, joined: Mapping[str, JoinedKind], names: Mapping[str, str]) -> pa.Table:
    """The shard's table; ``rows`` holds key, sha256 and caption, ``names`` who writes each kind now."""
    columns: dict[str, Any] = {name: rows[name] for name in ("key", "sha256", "caption")}
    for kind, each in joined.items():
        columns[kind] = pa.array(each.captions, pa.string())
        columns[f"{kind}_captioner"] = pa.array([names[kind]] * rows.num_rows, pa.string())
        columns[f"{kind}_score"] = pa.array(each.scores, pa.float32())
        columns[f"{kind}_shuffled"] = pa.array(each.shuffled, pa.float32())
    found = ([one and f"{kind} {one}" for one in each.problems] for kind, each in joined.items())
    reasons = ["; ".join(filter(None, row)) or None for row in zip(*found, strict=True)]
    columns["rejected"] = pa.array(reasons, pa.string())
    schema = RECAPTIONED.schema
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _filled_up(pixels: np.ndarray, multiple: int) -> np.ndarray:
    missing = -len(pixels) % multiple
    return np.concatenate([pixels, np.repeat(pixels[:1], missing, axis=0)]) if missing else pixels


def _rows_at(uri: str, positions: Sequence[int], columns: Sequence[str]) -> pa.Table:
    """Rows of a Parquet part at ascending positions; only the row groups that hold them are read."""
    with open_file(uri) as stream:
        file = pq.ParquetFile(stream)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        wanted = np.asarray(positions, dtype=np.int64)
        groups = np.unique(np.searchsorted(ends, wanted, side="right"))
        pieces = []
        for group in groups.tolist():
            start = int(ends[group]) - sizes[group]
            inside = wanted[(wanted >= start) & (wanted < ends[group])] - start
            pieces.append(file.read_row_group(group, columns=list(columns)).take(pa.array(inside)))
    return pa.concat_tables(pieces)


def _column_by_digest(uri: str, name: str) -> dict[str, Any]:
    with open_file(uri) as stream:
        table = pq.read_table(stream, columns=["sha256", name])
    return dict(zip(table["sha256"].to_pylist(), table[name].to_pylist(), strict=True))
