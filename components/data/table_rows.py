"""From Arrow record batches to rows: which columns hold picture, caption and key, and what may be wrong with a cell.

What belongs here: what tables of every file format share. What does not: any file format, and checks of what a picture
or caption holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components.contracts import SourceRow

from .picture_folder import PictureFolder
from .sources import (
    CAPTION_NAMES,
    IMAGE_SUFFIXES,
    KEY_NAMES,
    MAX_PICTURE_BYTES,
    MAX_TEXT_BYTES,
    CaptionRule,
    Problem,
    UnreadableShard,
    caption_of,
    first_named,
    license_of,
    state_of,
    text_of,
)

IMAGE_NAMES = ("image", "img", *IMAGE_SUFFIXES)  # img2dataset names the column after the encoding

PendingRow = tuple[SourceRow, str | None]  # the row, and the name of a picture that must still be read


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Columns that are not found by their usual names, and what to do with what they hold.

    ``images``: the folder or URI below which pictures lie that the table only names; None: such rows have no picture.
    """

    image: str | None = None
    caption: str | None = None
    key: str | None = None
    captions: CaptionRule = "first"
    images: str | None = None


USUAL_COLUMNS = TableColumns()


@dataclass(frozen=True, slots=True)
class TableLayout:
    """The columns of one file: the picture's, the caption's, the key's, and all that are read beside the picture."""

    uri: str
    columns: TableColumns
    image: str
    caption: str
    key: str | None
    others: tuple[str, ...]

    @classmethod
    def find(cls, columns: TableColumns, uri: str, schema: pa.Schema) -> TableLayout:
        """The layout of a schema; :class:`UnreadableShard` naming the remedy where a column cannot be found."""
        pictures = [field.name for field in schema if _holds_pictures(field.type)]
        image = _named(columns.image, schema, uri, "image") or first_named(IMAGE_NAMES, pictures)
        if image is None:
            raise UnreadableShard(uri, _not_found("image", IMAGE_NAMES, pictures or schema.names))
        kind = schema.field(image).type
        if image not in pictures and not (columns.images and _is_text(kind)):
            hint = "; to read pictures that it names, set source.images to the folder below which they lie"
            raise UnreadableShard(
                uri, f"column {image!r} holds {kind}, not encoded pictures{hint if _is_text(kind) else ''}"
            )
        texts = [field.name for field in schema if field.name not in (*pictures, image)]
        caption = _named(columns.caption, schema, uri, "caption") or first_named(CAPTION_NAMES, texts)
        if caption is None:
            raise UnreadableShard(uri, _not_found("caption", CAPTION_NAMES, texts))
        key = _named(columns.key, schema, uri, "key") or first_named(KEY_NAMES, texts)
        others = [str(name) for name in schema.names if name in texts or name in (caption, key)]
        return cls(uri, columns, image, caption, key, tuple(others))

    def wanted(self, *, with_images: bool) -> list[str]:
        """The columns to read."""
        return list(dict.fromkeys([*self.others, self.image])) if with_images else list(self.others)

    def rows(self, batch: pa.RecordBatch, shard: int, position: int, *, with_images: bool) -> Iterator[PendingRow]:
        """The rows of a batch, whose first one is the shard's row ``position``. One row's cells are held at a time."""
        columns = {name: batch.column(name) for name in batch.schema.names}
        for i in range(batch.num_rows):
            place, source = f"{shard:05d}-{position + i:08d}", f"{self.uri}#{position + i}"
            cells, problem = _cells({name: columns[name] for name in self.others}, i)
            row = self._row(cells, problem, place, source)
            yield self._with_image(row, columns[self.image], i) if with_images else (row, None)

    def _row(self, cells: dict[str, Any], problem: Problem | None, place: str, source: str) -> SourceRow:
        """The row without its picture."""
        key = place
        if self.key:
            try:
                key = text_of(cells[self.key]) or place
                if not text_of(cells[self.key]):
                    problem = problem or ("bad_key", f"column {self.key!r} is null or empty")
            except UnicodeDecodeError as error:
                problem = problem or ("bad_key", f"column {self.key!r}: {error}")
        try:
            caption = caption_of(cells[self.caption], self.columns.captions, key)
        except UnicodeDecodeError as error:
            caption, problem = None, problem or ("bad_caption", f"column {self.caption!r}: {error}")
        extra = {name: _readable(value) for name, value in cells.items()}
        if extra.get("status") not in (None, "success"):
            problem = problem or ("no_image", f"status {extra['status']}: {extra.get('error_message')}")
        return SourceRow(key, None, caption, source, license_of(extra), extra, problem)

    def _with_image(self, row: SourceRow, column: pa.Array, i: int) -> PendingRow:
        if row.problem is not None:
            return row, None
        cell, path = column[i], None
        if pa.types.is_struct(column.type):
            path = _value(cell["path"]) if cell.is_valid and "path" in cell else None
            cell = cell["bytes"] if cell.is_valid else cell
        elif not _is_binary(column.type) or self.image in self.others:
            path, cell = _value(cell), pa.scalar(None, pa.binary())
        num_bytes = _num_bytes(cell)
        if num_bytes > MAX_PICTURE_BYTES:
            return replace(row, problem=("too_many_bytes", f"{num_bytes} bytes, more than {MAX_PICTURE_BYTES}")), None
        if num_bytes:
            return replace(row, image=cell.as_py()), None
        path = _readable(path)
        if path and self.columns.images:
            return row, str(path)
        named = f"only a path, {path!r}: set source.images to the folder below which it lies"
        return replace(row, problem=("no_image", named if path else "the picture is null or empty")), None


@dataclass(frozen=True, slots=True)
class TableReader(ABC):
    """What readers of tables share (``contracts.Reader``): ``uris`` are the shards; a format says how to read one."""

    uris: Sequence[str]
    columns: TableColumns = USUAL_COLUMNS

    def shards(self) -> Sequence[str]:
        """The files, in the order given."""
        return self.uris

    def state(self, shard: int) -> str:
        """Digest of the file's size and modification time or etag."""
        return state_of(self.uris[shard])

    def read(self, shard: int) -> Iterator[SourceRow]:
        """Rows of one file, a few at a time; :class:`UnreadableShard` where the file or its columns are no good."""
        return with_pictures(self._rows(shard, with_images=True), self.columns.images)

    def extras(self, shard: int) -> Iterator[SourceRow]:
        """Like :meth:`read` without touching the pictures: a null picture is not noticed here."""
        return with_pictures(self._rows(shard, with_images=False), None)

    @abstractmethod
    def _rows(self, shard: int, *, with_images: bool) -> Iterator[PendingRow]: ...


def with_pictures(rows: Iterable[PendingRow], images: str | None) -> Iterator[SourceRow]:
    """The rows with the pictures that they only name, read from below ``images``."""
    if images is None:
        yield from (row for row, _ in rows)
        return
    for row, found in PictureFolder(images).read_all(rows):
        if found is None:
            yield row
        else:
            yield replace(row, image=found) if isinstance(found, bytes) else replace(row, problem=found)


def _cells(columns: dict[str, pa.Array], i: int) -> tuple[dict[str, Any], Problem | None]:
    """The cells of a row as Python values with texts as bytes; one that is too large is None and a problem."""
    cells, problem = {}, None
    for name, column in columns.items():
        cell = column[i]
        num_bytes = _num_bytes(cell)
        cells[name] = _value(cell) if num_bytes <= MAX_TEXT_BYTES else None
        if num_bytes > MAX_TEXT_BYTES:
            problem = ("bad_metadata", f"column {name!r}: {num_bytes} bytes, more than {MAX_TEXT_BYTES}")
    return cells, problem


def _value(cell: pa.Scalar) -> Any:
    """The cell as Python values; texts stay bytes: nobody has checked that they are UTF-8."""
    if not cell.is_valid:
        return None
    if isinstance(cell, pa.DictionaryScalar):
        return _value(cell.value)
    if isinstance(cell, pa.BinaryScalar):  # and its kin: large ones, views, strings
        return cell.as_buffer().to_pybytes()
    if isinstance(cell, pa.StructScalar):
        return {name: _value(each) for name, each in cell.items()}
    if isinstance(cell, pa.ListScalar):
        return [_value(each) for each in cell.values or ()]
    return cell.as_py()


def _num_bytes(cell: pa.Scalar) -> int:
    """What a cell takes as a Python value, about, decided without making one."""
    if not cell.is_valid:
        return 0
    if isinstance(cell, pa.DictionaryScalar):
        return _num_bytes(cell.value)
    if isinstance(cell, pa.BinaryScalar):
        return cell.as_buffer().size
    if isinstance(cell, pa.StructScalar):
        return sum(_num_bytes(each) for each in cell.values())
    if isinstance(cell, pa.ListScalar):
        return _num_array_bytes(cell.values)
    return 16


def _num_array_bytes(values: pa.Array | None) -> int:
    if values is None:
        return 0
    if pa.types.is_dictionary(values.type) and (_is_text(values.type) or _is_binary(values.type)):
        lengths = pc.call_function("binary_length", [values.dictionary]).take(values.indices)
        return 16 * len(values) + (pc.call_function("sum", [lengths]).as_py() or 0)
    return max(16 * len(values), values.nbytes)


def _readable(value: Any) -> Any:
    """A cell for people: bytes as text, whatever they hold."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return [_readable(each) for each in value]
    if isinstance(value, dict):
        return {name: _readable(each) for name, each in value.items()}
    return value


def _named(name: str | None, schema: pa.Schema, uri: str, role: str) -> str | None:
    if name is not None and name not in schema.names:
        raise UnreadableShard(uri, f"it has no column {name!r} (source.columns.{role}), only {', '.join(schema.names)}")
    return name


def _not_found(role: str, usual: Sequence[str], names: Sequence[str]) -> str:
    return (
        f"it has no {role} column named {', '.join(usual)}; "
        f"set source.columns.{role} in dataset.yaml to one of {', '.join(names)}"
    )


def _is_binary(kind: pa.DataType) -> bool:
    kind = _plain(kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_text(kind: pa.DataType) -> bool:
    kind = _plain(kind)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _holds_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_binary(field.type) for field in kind)
    return _is_binary(kind)
