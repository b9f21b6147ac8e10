"""The catalogue: data sets by name, as readers of rows and as small sets of example captions.

What belongs here: from a ``dataset.yaml`` to rows. What does not: what may stand in that file
(``components.data.dataset_file``) and the formats (readers).
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from components.addresses import without_credentials
from components.contracts import Frozen, Reader, SourceRow

from .dataset_file import (
    DatasetError,
    DatasetFile,
    ExampleSet,
    FolderSource,
    HuggingFaceSource,
    ScenesSource,
    TableSource,
    WebdatasetSource,
    absolute_uri,
    did_you_mean,
    read_dataset_file,
)
from .folder_reader import open_folder
from .golden import GoldenPicture, read_golden
from .huggingface_reader import HuggingFaceReader, arrow_files
from .images import Rejection, normalise_caption
from .json_lines import read_json_lines
from .parquet_reader import ParquetReader
from .scenes import SceneOptions, ScenesReader
from .sources import resolve_uri
from .table_rows import TableColumns
from .webdataset_reader import WebdatasetReader

log = logging.getLogger(__name__)

DATASETS = Path(__file__).resolve().parents[2] / "datasets"

ExampleKind = Literal["ssc", "dsc"]
Split = Literal["train", "evaluation"]


def load_dataset(name: str, root: Path = DATASETS) -> Dataset:
    """The data set ``name`` of the catalogue under ``root``.

    Raises DatasetError naming the file, the field and the remedy where it is unknown, misspelt, or an environment
    variable that it needs is not set. Nothing is looked up in storage yet.
    """
    root = root.resolve()
    known = sorted(file.parent.name for file in root.glob("*/dataset.yaml"))
    if name not in known:
        raise DatasetError(
            f"there is no data set {name!r} in {root}{did_you_mean(name, known)} Known: {', '.join(known) or 'none'}. "
            f"To add one, write {root}/<name>/dataset.yaml"
        )
    file = root / name / "dataset.yaml"
    facts = read_dataset_file(file)
    uris = tuple(
        "" if isinstance(source, ScenesSource) else absolute_uri(source.uri, file, _field_of(facts, i))
        for i, source in enumerate(facts.source)
    )
    images = tuple(
        named and absolute_uri(named, file, _field_of(facts, i, "images"))
        for i, named in enumerate(source.images if isinstance(source, TableSource) else None for source in facts.source)
    )
    return Dataset(facts, file, uris, images)


def split_of(key: str, evaluation_fraction: float) -> Split:
    """Which split a row belongs to: a function of its key alone, so that it never changes sides."""
    draw = int.from_bytes(hashlib.sha256(key.encode("utf-8", "backslashreplace")).digest()[:8])
    return "evaluation" if draw < evaluation_fraction * 2**64 else "train"


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a ``dataset.yaml`` says (``facts``), with addresses filled in; it may be sent to other processes."""

    facts: DatasetFile
    file: Path
    uris: tuple[str, ...]
    images: tuple[str | None, ...]  # below which pictures lie that a source's table only names

    @property
    def name(self) -> str:
        """The name in the catalogue."""
        return self.facts.name

    @property
    def license(self) -> str:
        """Licence of rows that name none."""
        return self.facts.license

    @property
    def folder(self) -> Path:
        """Where the ``dataset.yaml`` lies."""
        return self.file.parent

    @property
    def evaluation_fraction(self) -> float:
        """Share of rows that nothing is trained on."""
        return self.facts.splits.evaluation

    def is_held_out(self, key: str) -> bool:
        """Whether nothing is trained on the row of a key."""
        return split_of(key, self.evaluation_fraction) == "evaluation"

    @property
    def has_ground_truth(self) -> bool:
        """Whether the scene behind every row is known."""
        return self._scenes is not None

    @property
    def scene_seed(self) -> int:
        """Seed of the world of scenes; ValueError where the data set has no ground truth."""
        if self._scenes is None:
            raise ValueError(f"data set {self.name!r} has no ground truth: its source is not scenes alone")
        return self._scenes.seed

    @property
    def scene_options(self) -> SceneOptions:
        """What the world of scenes holds beyond its core; ValueError where the data set has no ground truth."""
        if self._scenes is None:
            raise ValueError(f"data set {self.name!r} has no ground truth: its source is not scenes alone")
        return _options_of(self._scenes)

    @property
    def _scenes(self) -> ScenesSource | None:
        only = self.facts.source[0]
        return only if len(self.facts.source) == 1 and isinstance(only, ScenesSource) else None

    def opt_out_uris(self) -> list[str]:
        """Addresses of the opt-out lists: the data set's own, and the one that ``ATELIER_OPT_OUT`` names."""
        own = [absolute_uri(self.facts.opt_out, self.file, "opt_out")] if self.facts.opt_out else []
        return own + ([os.environ["ATELIER_OPT_OUT"]] if os.environ.get("ATELIER_OPT_OUT") else [])

    def source_settings(self) -> list[dict[str, Any]]:
        """What decides which rows there are, for fingerprints; addresses stand as written, variables not filled in."""
        return [source.model_dump(mode="json") for source in self.facts.source]

    def example_settings(self) -> dict[str, Any]:
        """What decides the example sets, for fingerprints; files by their content."""
        settings: dict[str, Any] = {}
        for kind in ("ssc", "dsc"):
            wanted: ExampleSet | None = getattr(self.facts.examples, kind)
            settings[kind] = wanted and wanted.model_dump(mode="json")
            if wanted and wanted.file:
                settings[kind]["sha256"] = hashlib.sha256(self._example_file(kind, wanted.file)).hexdigest()
        return settings

    def reader(
        self, resolution: int, max_rows_per_shard: int | None = None, max_shards: int | None = None
    ) -> SourcesReader:
        """All sources as one, shards concatenated; ``resolution`` is the side of pictures that are drawn (scenes).

        Raises DatasetError where an address names nothing or cannot be reached.
        """
        parts = tuple(
            (f"{source.name}/" if len(self.facts.source) > 1 else "", self._reader_of(i, resolution))
            for i, source in enumerate(self.facts.source)
        )
        return SourcesReader(parts, max_rows_per_shard, max_shards)

    def _reader_of(self, i: int, resolution: int) -> Reader:
        source, uri = self.facts.source[i], self.uris[i]
        if isinstance(source, ScenesSource):
            return ScenesReader(
                source.rows, source.rows_per_shard, source.seed, resolution, source.noise, _options_of(source)
            )
        try:
            if isinstance(source, FolderSource):
                caption = source.columns.caption
                return open_folder(uri, source.rows_per_shard, source.captions_file, caption, source.captions)
            if isinstance(source, WebdatasetSource):
                return WebdatasetReader(resolve_uri(uri), source.columns.caption, source.captions)
            columns = TableColumns(**source.columns.model_dump(), captions=source.captions, images=self.images[i])
            if isinstance(source, HuggingFaceSource):
                return HuggingFaceReader(arrow_files(uri, source.split), columns)
            return ParquetReader(resolve_uri(uri), columns)
        except Exception as error:  # whatever a storage driver raises, the remedy is the same
            raise DatasetError(
                without_credentials(
                    f"{self.file}: {_field_of(self.facts, i)}: {uri} (written as {source.uri}): "
                    f"{str(error) or type(error).__name__}; check the address and, for remote storage, the credentials"
                )
            ) from None  # the driver's own words may hold a password

    def examples(self, kind: ExampleKind, reader: Reader) -> dict[str, str]:
        """Texts of the small example set by key, all of the train split; empty where the data set has none.

        Streams over the reader's rows without pictures, in their order, and stops at ``rows``. Raises DatasetError
        where the file is broken or no row gives a text.
        """
        wanted: ExampleSet | None = getattr(self.facts.examples, kind)
        if wanted is None:
            return {}
        if wanted.file is not None:
            return self._examples_of_file(kind, wanted.file)
        texts: dict[str, str] = {}
        columns_seen: Sequence[str] = ()
        for row in (row for shard in range(len(reader.shards())) for row in reader.extras(shard)):
            if row.problem is not None or split_of(row.key, self.evaluation_fraction) != "train":
                continue
            columns_seen = columns_seen or list(row.extra)
            text = _example_text(wanted, row)
            if text and row.key not in texts:
                texts[row.key] = text
                if len(texts) == wanted.rows:
                    break
        if not texts:
            unknown = [name for name in (*wanted.columns, *wanted.where) if name not in columns_seen]
            hint = did_you_mean(unknown[0], columns_seen) if unknown else "."
            raise DatasetError(
                f"{self.file}: examples.{kind}: no row of the train split gives a text with columns "
                f"{list(wanted.columns)} and where {wanted.where}{hint} Rows have: {', '.join(columns_seen) or 'none'}"
            )
        return texts

    def _examples_of_file(self, kind: str, name: str) -> dict[str, str]:
        texts: dict[str, str] = {}
        lines = read_json_lines(
            str(self.folder / name), self._example_file(kind, name), _ExampleLine, DatasetError, EXAMPLE_FORM
        )
        for place, example in lines:
            text = normalise_caption(example.text)
            if isinstance(text, Rejection) or not text:
                raise DatasetError(f"{place}: text: it is empty or not UTF-8")
            if example.key in texts:
                raise DatasetError(f"{place}: key: {example.key!r} stands twice")
            if split_of(example.key, self.evaluation_fraction) == "train":
                texts[example.key] = text
            else:
                log.info("%s: %r is left out, it belongs to the evaluation split", place, example.key)
        if not texts:
            raise DatasetError(f"{self.folder / name}: it holds no example of the train split")
        return texts

    def golden(self) -> list[GoldenPicture]:
        """The golden pictures of the data set's file; empty where it has none."""
        return read_golden(self.folder / self.facts.golden) if self.facts.golden else []

    def golden_settings(self) -> list[Any]:
        """What decides the golden test, for fingerprints; picture files by their content."""
        settings = []
        for golden in self.golden():
            content = (self.folder / golden.picture).read_bytes() if golden.picture else b""
            settings.append(golden.model_dump(mode="json") | {"sha256": hashlib.sha256(content).hexdigest()})
        return settings

    def _example_file(self, kind: str, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise DatasetError(f"{self.file}: examples.{kind}: {self.folder / name} cannot be read: {error}") from error


EXAMPLE_FORM = 'write {"key": "..", "text": ".."}'


class _ExampleLine(Frozen):
    key: str = Field(description="Key of the row in raw_pairs.", min_length=1)
    text: str = Field(description="The caption.")


@dataclass(frozen=True, slots=True)
class SourcesReader:
    """Several readers as one (``contracts.Reader``): shards concatenated, keys behind each reader's prefix, limited."""

    parts: tuple[tuple[str, Reader], ...]
    max_rows_per_shard: int | None = None
    max_shards: int | None = None

    def shards(self) -> Sequence[str]:
        """URIs of the shards of all parts, at most ``max_shards``."""
        return [uri for _, reader in self.parts for uri in reader.shards()][: self.max_shards]

    def state(self, shard: int) -> str:
        """What tells that a shard has changed, as its own reader says."""
        _, reader, position = self._part_of(shard)
        return reader.state(position)

    def read(self, shard: int) -> Iterator[SourceRow]:
        """The first ``max_rows_per_shard`` rows of a shard."""
        prefix, reader, position = self._part_of(shard)
        return self._limited(prefix, reader.read(position))

    def extras(self, shard: int) -> Iterator[SourceRow]:
        """Like :meth:`read` without pictures."""
        prefix, reader, position = self._part_of(shard)
        return self._limited(prefix, reader.extras(position))

    def _part_of(self, shard: int) -> tuple[str, Reader, int]:
        position = shard
        for prefix, reader in self.parts:
            num_shards = len(reader.shards())
            if position < num_shards:
                return prefix, reader, position
            position -= num_shards
        raise IndexError(f"there is no shard {shard}: the source has {len(self.shards())}")

    def _limited(self, prefix: str, rows: Iterator[SourceRow]) -> Iterator[SourceRow]:
        for row in islice(rows, self.max_rows_per_shard):
            yield dataclasses.replace(row, key=prefix + row.key) if prefix else row


def _options_of(source: ScenesSource) -> SceneOptions:
    return SceneOptions(style=source.styles, text=source.text)


def _field_of(facts: DatasetFile, i: int, field: str = "uri") -> str:
    return f"source.{field}" if len(facts.source) == 1 else f"source.{i}.{field}"


def _example_text(wanted: ExampleSet, row: SourceRow) -> str | None:
    """The template filled in, or None where the row lacks a value or is not wanted."""
    values: Mapping[str, Any] = {"caption": row.caption, "key": row.key, **row.extra}
    if any(str(values.get(name)).lower() != str(value).lower() for name, value in wanted.where.items()):
        return None
    cells: dict[str, str] = {}
    for name in wanted.columns:
        value = values.get(name)
        cells[name] = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
        if not cells[name].strip():
            return None
    text = normalise_caption((wanted.template or "").format_map(cells))
    return None if isinstance(text, Rejection) else text
