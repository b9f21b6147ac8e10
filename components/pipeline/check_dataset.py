"""A data set's dry run: a sample of its rows is read and judged, and nothing is written.

What belongs here: which rows are looked at, and words about them for the terminal. What does not: the checks (those of
ingestion) and the rules of a ``dataset.yaml``.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any

from components.contracts import Reader, SourceRow
from components.data.catalog import Dataset
from components.data.duplicates import Looks, copies, held_out_copies
from components.data.ingest import IngestConfig, ingest_shard
from components.data.picture_process import PictureProcess
from components.data.sources import UnreadableShard
from components.recipes.recipe import Recipe
from components.terminal import printable

from .ingest import open_reader, shard_name

MAX_SHARDS = 8  # that are looked into, spread over all
MAX_SECONDS = 120.0  # for all of them
NUM_EXAMPLES = 3  # of each reason
MAX_SHOWN_CHARS = 100  # of an example or a caption
MAX_FAILURE_CHARS = 400
REMEDIES: Mapping[str, str] = {
    "no_image": "the reader found no picture: check source.columns.image, or source.images where a table names files",
    "bad_caption": "captions are not UTF-8: convert the source, for example with iconv",
    "bad_key": "keys must be short plain text, one for each row: check source.columns.key",
    "bad_metadata": "a sidecar or a line of metadata is broken or larger than 1 MiB: mend it",
    "duplicate_key": "keys repeat: name another source.columns.key, or give each part of the data a source of its own",
    "duplicate_image": "copies: data.ingest.duplicate_images=keep takes them all",
    "held_out_image": "the same picture is held out for evaluation under another key: nothing to do",
    "near_duplicate": "near copies: data.near_duplicates=null takes them all",
    "too_small": "data.ingest.min_side is the smallest side that is taken",
    "bad_aspect": "data.ingest.max_aspect is the longest shape that is taken",
    "too_many_pixels": "data.ingest.max_pixels is the largest picture that is taken",
    "too_many_bytes": "data.ingest.max_bytes is the largest file that is taken (and 64 MiB)",
    "low_clip_score": "data.ingest.clip_filter.min_score decides",
    "filtered": "data.ingest.classifier_filters decide",
}


@dataclass(slots=True)
class SampleReport:
    """What was found in a sample of a data set's rows."""

    dataset: str
    num_shards: int
    num_looked_into: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    failures: list[str] = field(default_factory=list)
    caption_chars: list[int] = field(default_factory=list)
    sides: list[tuple[int, int]] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def read(self) -> int:
        """Rows looked at: kept and rejected ones."""
        return self.kept + self.reasons.total()

    @property
    def is_good(self) -> bool:
        """Whether rows are kept and no shard that was looked into is lost."""
        return self.kept > 0 and not self.failures

    def lines(self) -> Iterator[str]:
        """The report for the terminal; captions and names cannot move its cursor or colour it."""
        shards = f"{self.num_looked_into} of {self.num_shards} shards"
        yield f"{self.dataset}: {self.read} rows of {shards} read in {self.seconds:.1f} s"
        yield f"  kept {self.kept}, rejected {self.reasons.total()}"
        for reason, count in self.reasons.most_common():
            yield f"  {reason}: {count} ({count / self.read:.1%})"
            yield from (f"    {printable(example, MAX_SHOWN_CHARS)}" for example in self.examples[reason])
            if reason in REMEDIES:
                yield f"    -> {REMEDIES[reason]}"
        yield from (f"  lost: {printable(failure, MAX_FAILURE_CHARS)}" for failure in self.failures)
        if self.kept:
            yield f"  captions: {_spread(self.caption_chars)} characters, {self.caption_chars.count(0)} empty"
            yield from (f"    {printable(caption, MAX_SHOWN_CHARS)}" for caption in self.captions)
            yield f"  pictures: {_spread([min(size) for size in self.sides])} px on the shorter side, " + (
                f"{_spread([max(size) for size in self.sides])} px on the longer one, as stored"
            )
        yield f"  {self._advice()}"

    def _advice(self) -> str:
        if self.failures:
            return "Some shards cannot be read: mend or remove them; the others would be kept without them."
        if not self.kept:
            return "Nothing would be kept: mend what stands above before you go on."
        if self.reasons.total() > 0.2 * self.read:
            return "More than a fifth would be set aside: see whether the reasons above are what you want."
        if self.caption_chars.count(0) > 0.5 * self.kept:
            return "Most captions are empty: check source.columns.caption (rows without a caption are kept)."
        return f"Ready: make ingest DATASET={self.dataset}"


def check_dataset(dataset: Dataset, recipe: Recipe, num_rows: int = 200) -> SampleReport:
    """Read ``num_rows`` rows of at most ``MAX_SHARDS`` shards, spread over all, and judge them as ingestion would.

    The recipe's filters by model are left out. Memory is that of ingestion; a shard gets its share of ``MAX_SECONDS``.
    Raises :class:`components.data.dataset_file.DatasetError` where the source cannot be found.
    """
    started = time.monotonic()
    reader = open_reader(dataset, recipe)
    num_shards = len(reader.shards())
    count = min(MAX_SHARDS, num_shards, num_rows)
    chosen = sorted({i * num_shards // count for i in range(count)})
    report = SampleReport(dataset.name, num_shards)
    sample = _Sample(reader, -(-num_rows // len(chosen)))
    config = recipe.data.ingest.model_copy(update={"max_shard_seconds": MAX_SECONDS / len(chosen)})
    looked: list[tuple[str, dict[str, list[Any]]]] = []
    with PictureProcess(config, min(config.max_picture_seconds, config.max_shard_seconds)) as pictures:
        for shard in chosen:
            report.num_looked_into += 1
            try:
                looked.append((shard_name(shard), _look(report, sample, shard, config, pictures)))
            except UnreadableShard as error:
                report.failures.append(str(error))
    _find_copies(report, looked, dataset, recipe)
    report.seconds = time.monotonic() - started
    return report


@dataclass(frozen=True, slots=True)
class _Sample:
    """The first rows of every shard."""

    reader: Reader
    num_rows: int

    def shards(self) -> Sequence[str]:
        return self.reader.shards()

    def state(self, shard: int) -> str:
        return self.reader.state(shard)

    def read(self, shard: int) -> Iterator[SourceRow]:
        return islice(self.reader.read(shard), self.num_rows)

    def extras(self, shard: int) -> Iterator[SourceRow]:
        return islice(self.reader.extras(shard), self.num_rows)


def _look(
    report: SampleReport, sample: _Sample, shard: int, config: IngestConfig, pictures: PictureProcess
) -> dict[str, list[Any]]:
    """Add a shard's rows to the report; the columns of the kept ones but their pictures."""
    result = ingest_shard(sample, shard, config, normaliser=pictures)
    for row in result.rejected.to_pylist():
        _reject(report, row["reason"], f"{row['source']}: {row['detail']}")
    columns: dict[str, list[Any]] = defaultdict(list)
    for group in result.row_groups():
        for name in group.schema.names:
            if name != "image":
                columns[name] += group[name].to_pylist()
    report.kept += result.num_kept
    report.caption_chars += map(len, columns["caption"])
    report.sides += zip(columns["width"], columns["height"], strict=True)
    report.captions += [text for text in columns["caption"] if text][: NUM_EXAMPLES - len(report.captions)]
    return columns


def _find_copies(
    report: SampleReport, looked: Sequence[tuple[str, dict[str, list[Any]]]], dataset: Dataset, recipe: Recipe
) -> None:
    """Set rows aside that are copies of others, as the image set would."""
    rule = recipe.data.ingest.duplicate_images
    looks = Looks.of(((shard, columns) for shard, columns in looked if columns), rule)
    found = copies(looks, rule, recipe.data.near_duplicates)
    found |= held_out_copies(looks, found, dataset.is_held_out)
    for row, rejection in found.items():
        report.kept -= 1
        _reject(report, rejection.reason, f"{looks.keys[row]}: {rejection.detail}")


def _reject(report: SampleReport, reason: str, example: str) -> None:
    report.reasons[reason] += 1
    if len(report.examples[reason]) < NUM_EXAMPLES:
        report.examples[reason].append(example)


def _spread(values: Sequence[int]) -> str:
    return f"{min(values)} to {max(values)} (half of them up to {median(values):g})"
