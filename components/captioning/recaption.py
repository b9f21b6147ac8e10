"""Recaptioning: both synthetic captions, their CLIP scores and a verdict for every row of a row group.

What belongs here: the worker that an executor runs and the quality of what it wrote. What does not: loading a captioner
(the worker is given functions that do) and where the table is kept (``components.pipeline``).
"""

from collections.abc import Callable, Mapping, Sequence
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

KINDS = ("ssc", "dsc")


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
    """Writes rows of ``RECAPTIONED``; a factory for :meth:`components.contracts.Executor.map`.

    ``captioners`` and ``load_scorer`` load models once per worker; ``names`` maps ``ssc`` and ``dsc`` to the registry's
    name/version; items are ``{"uri": a Parquet part of raw_pairs, "row_group": int}``.
    """

    captioners: Mapping[str, Callable[[], Captioner]]
    names: Mapping[str, str]
    load_scorer: Callable[[], Scorer]
    resolution: int
    fit: Fit
    quality: QualityConfig

    def __call__(self) -> "_Recaptioning":
        """Load the models."""
        return _Recaptioning(self, {kind: load() for kind, load in self.captioners.items()}, self.load_scorer())


class _Recaptioning:
    """The loaded models, at work on one row group after the other."""

    def __init__(self, worker: CaptionWorker, captioners: Mapping[str, Captioner], scorer: Scorer) -> None:
        self.worker, self.captioners, self.scorer = worker, captioners, scorer

    def __call__(self, item: Mapping[str, Any]) -> pa.Table:
        with open_file(item["uri"]) as stream:
            columns = ["key", "sha256", "caption", "image"]
            table = pq.ParquetFile(stream).read_row_group(item["row_group"], columns=columns)
        worker = self.worker
        pixels = np.stack([decode_pixels(image.as_py(), worker.resolution, worker.fit) for image in table["image"]])
        keys = table["key"].to_pylist()
        texts = {kind: self.captioners[kind].caption(pixels, keys) for kind in KINDS}
        scores = own_and_shuffled_scores(self.scorer, pixels, texts)
        columns = {name: table[name] for name in ("key", "sha256", "caption")}
        for kind in KINDS:
            columns[kind] = pa.array(texts[kind], pa.string())
            columns[f"{kind}_captioner"] = pa.array([worker.names[kind]] * len(keys), pa.string())
            columns[f"{kind}_score"] = pa.array(scores[kind][0], pa.float32())
        columns["rejected"] = pa.array(
            [self._rejection(ssc, dsc) for ssc, dsc in zip(texts["ssc"], texts["dsc"], strict=True)], pa.string()
        )
        shuffled = {f"shuffled_{kind}": str(float(scores[kind][1].mean())).encode() for kind in KINDS}
        schema = RECAPTIONED.schema
        return pa.table([columns[name] for name in schema.names], schema=schema.with_metadata(shuffled))

    def _rejection(self, ssc: str, dsc: str) -> str | None:
        found = [(kind, problem_of(text, self.worker.quality)) for kind, text in (("ssc", ssc), ("dsc", dsc))]
        return "; ".join(f"{kind} {problem}" for kind, problem in found if problem) or None


def own_and_shuffled_scores(
    scorer: Scorer, pixels: np.ndarray, texts: Mapping[str, Sequence[str]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By kind: CLIP scores (cosine x 100) of each text with its own picture, and with the next row's picture."""
    images = scorer.image_embeds(pixels)
    scores = {}
    for kind, captions in texts.items():
        embeds = scorer.text_embeds(captions)
        others = np.roll(images, 1, axis=0)
        scores[kind] = (100 * (images * embeds).sum(axis=1), 100 * (others * embeds).sum(axis=1))
    return scores


def measure_quality(captions: Sequence[str], pixels: np.ndarray, scorer: Scorer, config: QualityConfig) -> ShardQuality:
    """Quality of captions of these pictures, uint8 (N, H, W, 3)."""
    own, shuffled = own_and_shuffled_scores(scorer, pixels, {"any": captions})["any"]
    return quality_of(captions, own.tolist(), shuffled.tolist(), config)


def shard_quality(tables: Sequence[pa.Table], config: QualityConfig) -> dict[str, ShardQuality]:
    """Quality by kind of a shard's row groups, as the workers handed them back."""
    quality = {}
    for kind in KINDS:
        captions = [text or "" for table in tables for text in table[kind].to_pylist()]
        scores = [score for table in tables for score in table[f"{kind}_score"].to_pylist()]
        shuffled = [
            float((table.schema.metadata or {})[f"shuffled_{kind}".encode()])
            for table in tables
            for _ in range(table.num_rows)
        ]
        quality[kind] = quality_of(captions, scores, shuffled, config)
    return quality
