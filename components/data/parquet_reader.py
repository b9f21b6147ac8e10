"""Rows from Parquet files: img2dataset's form, Hugging Face's form, or any table with pictures in a column.

What belongs here: finding the columns and streaming rows. What does not: checks of what a picture or caption holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.contracts import SourceRow

from .sources import CAPTION_NAMES, LICENSE_NAMES, UnreadableShard, open_shard, text_of

IMAGE_NAMES = ("image", "img", "png", "jpg", "jpeg", "webp")  # img2dataset names the column after the encoding
KEY_NAMES = ("key", "__key__", "id", "uid")
BATCH_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class ParquetReader:
    """Reads each file of ``uris`` as a shard; columns that are not named are found by their usual names.

    Pictures are encoded bytes, bare or as Hugging Face's ``struct{bytes, path}``. Without a key column the key is the
    row's place, ``<shard>-<row>``. ``extra`` holds every column but the binary ones.
    """

    uris: Sequence[str]
    image: str | None = None
    caption: str | None = None
    key: str | None = None

    def shards(self) -> Sequence[str]:
        """The files, in the order given."""
        return self.uris

    def read(self, shard: int) -> Iterator[SourceRow]:
        """Rows of one file, a few at a time; :class:`UnreadableShard` where the file or its columns are no good."""
        return self._rows(shard, with_images=True)

    def extras(self, shard: int) -> Iterator[SourceRow]:
        """Like :meth:`read` without touching the pictures: a null picture is not noticed here."""
        return self._rows(shard, with_images=False)

    def _rows(self, shard: int, *, with_images: bool) -> Iterator[SourceRow]:
        uri = self.uris[shard]
        with open_shard(uri) as file:
            parquet = pq.ParquetFile(file, buffer_size=2**20)
            names = _Names.find(self, uri, parquet.schema_arrow)
            wanted = [*names.others, names.image] if with_images else list(names.others)
            position = 0
            batches = parquet.iter_batches(_rows_per_batch(parquet.metadata), columns=wanted, use_threads=False)
            for batch in batches:
                columns = {name: _cells(batch.column(name)) for name in batch.schema.names}
                for i in range(batch.num_rows):
                    cells = {name: column[i] for name, column in columns.items()}
                    image = cells.pop(names.image, None)
                    row = _row(cells, names, place=f"{shard:05d}-{position:08d}", source=f"{uri}#{position}")
                    yield _with_image(row, image) if with_images else row
                    position += 1


@dataclass(frozen=True, slots=True)
class _Names:
    """The columns of one file: the picture's, the caption's, the key's, and all that are read beside the picture."""

    image: str
    caption: str
    key: str | None
    license: str | None
    others: tuple[str, ...]

    @classmethod
    def find(cls, reader: ParquetReader, uri: str, schema: pa.Schema) -> _Names:
        pictures = [field.name for field in schema if _holds_pictures(field.type)]
        image = _named(reader.image, schema, uri, "image") or _found(IMAGE_NAMES, pictures)
        if image is None:
            raise UnreadableShard(uri, _not_found("image", IMAGE_NAMES, pictures or schema.names))
        if image not in pictures:
            raise UnreadableShard(uri, f"column {image!r} holds {schema.field(image).type}, not encoded pictures")
        texts = [field.name for field in schema if field.name not in pictures]
        caption = _named(reader.caption, schema, uri, "caption") or _found(CAPTION_NAMES, texts)
        if caption is None:
            raise UnreadableShard(uri, _not_found("caption", CAPTION_NAMES, texts))
        key = _named(reader.key, schema, uri, "key") or _found(KEY_NAMES, texts)
        others = [str(name) for name in schema.names if name in texts or name in (caption, key)]
        return cls(image, caption, key, _found(LICENSE_NAMES, texts), tuple(others))


def _named(name: str | None, schema: pa.Schema, uri: str, role: str) -> str | None:
    if name is not None and name not in schema.names:
        raise UnreadableShard(uri, f"it has no column {name!r} (source.columns.{role}), only {', '.join(schema.names)}")
    return name


def _found(usual: Sequence[str], names: Sequence[str]) -> str | None:
    by_lower_case = {name.lower(): name for name in reversed(names)}
    return next((by_lower_case[name] for name in usual if name in by_lower_case), None)


def _not_found(role: str, usual: Sequence[str], names: Sequence[str]) -> str:
    return (
        f"it has no {role} column named {', '.join(usual)}; "
        f"set source.columns.{role} in dataset.yaml to one of {', '.join(names)}"
    )


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _holds_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_binary(field.type) for field in kind)
    return _is_binary(kind)


def _rows_per_batch(metadata: pq.FileMetaData) -> int:
    """As many rows as take about ``BATCH_BYTES`` uncompressed, so that large pictures are held a few at a time."""
    num_bytes = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return max(1, min(1024, BATCH_BYTES * metadata.num_rows // max(1, num_bytes)))


def _cells(column: pa.Array) -> list[Any]:
    """Python values; texts stay bytes, because Arrow does not check that they are UTF-8 and one bad cell fails all."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.binary())
    elif pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    return column.to_pylist()


def _row(cells: dict[str, Any], names: _Names, place: str, source: str) -> SourceRow:
    """The row without its picture."""
    problem = None
    try:
        key = text_of(cells[names.key]) if names.key else place
    except UnicodeDecodeError as error:
        key, problem = place, ("bad_key", f"column {names.key!r}: {error}")
    if not key:
        key, problem = place, problem or ("bad_key", f"column {names.key!r} is null or empty")
    try:
        caption = text_of(cells[names.caption])
    except UnicodeDecodeError as error:
        caption, problem = None, problem or ("bad_caption", f"column {names.caption!r}: {error}")
    extra = {name: _readable(value) for name, value in cells.items()}
    if extra.get("status") not in (None, "success"):
        problem = problem or ("no_image", f"status {extra['status']}: {extra.get('error_message')}")
    license_ = extra.get(names.license) if names.license else None
    return SourceRow(key, None, caption, source, str(license_) if license_ else None, extra, problem)


def _readable(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _with_image(row: SourceRow, cell: Any) -> SourceRow:
    problem = row.problem
    path = None
    if isinstance(cell, dict):
        cell, path = cell["bytes"], cell.get("path")
    if problem is None and not cell:
        problem = ("no_image", f"only a path: {path}" if path else "the picture is null or empty")
    image = None if problem else cell
    return SourceRow(row.key, image, row.caption, row.source, row.license, row.extra, problem)
