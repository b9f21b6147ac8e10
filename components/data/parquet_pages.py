"""What a Parquet file will take in memory, told from the headers of its pages before any of them is unpacked.

What belongs here: walking page headers (Thrift's compact protocol; parquet-format's ``PageHeader``). What does not:
decoding pages, which is Arrow's work. The footer's own figures decide nothing: whoever makes a file that blows up can
write there what they like.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow.parquet as pq

MAX_PAGE_BYTES = 192 * 2**20  # Arrow holds a page about three times while it unpacks it
MAX_REPEATED_VALUES = 2**23  # in one row group of a column of lists
DICTIONARY_PAGE = 2
_HEADER_BYTES = 2**16  # statistics of a page hold a value or two
_MAX_DEPTH = 8
# Thrift's types, and the fields of a page header that are read
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_TYPE, _UNCOMPRESSED, _COMPRESSED, _DATA, _DICTIONARY, _DATA_V2 = 1, 2, 3, 5, 7, 8


class BadPages(ValueError):
    """Pages that cannot be read, or that would take too much memory; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Uncompressed bytes of the pages of the columns that are read: all of them, the largest dictionaries, per row."""

    num_bytes: int = 0
    dictionary_bytes: int = 0
    largest_page_bytes: int = 0


def footprint_of(file: IO[bytes], metadata: pq.FileMetaData, columns: Sequence[str]) -> Footprint:
    """The footprint of some columns (names of the top level).

    Raises :class:`BadPages` for a page of more than ``MAX_PAGE_BYTES``, more than ``MAX_REPEATED_VALUES`` in lists, or
    headers that are broken.
    """
    num_bytes = dictionary_bytes = largest = 0
    for group in range(metadata.num_row_groups):
        row_group, dictionaries = metadata.row_group(group), 0
        for i in range(row_group.num_columns):
            column = row_group.column(i)
            if column.path_in_schema.split(".", 1)[0] not in columns:
                continue
            pages = list(_pages(file, column))
            worst = max((page.uncompressed for page in pages), default=0)
            if worst > MAX_PAGE_BYTES:
                raise BadPages(
                    f"column {column.path_in_schema!r} has a page of {worst} bytes, more than {MAX_PAGE_BYTES}; "
                    "write the file with fewer rows in a row group (pyarrow: row_group_size=100, use_dictionary=False)"
                )
            values = sum(page.num_values for page in pages)
            if metadata.schema.column(i).max_repetition_level and values > MAX_REPEATED_VALUES:
                raise BadPages(
                    f"column {column.path_in_schema!r} has {values} values in the lists of row group {group}, more "
                    f"than {MAX_REPEATED_VALUES}; write the file with fewer rows in a row group"
                )
            num_bytes += sum(page.uncompressed for page in pages)
            dictionaries += max((page.uncompressed for page in pages if page.kind == DICTIONARY_PAGE), default=0)
            largest = max(largest, worst)
        dictionary_bytes = max(dictionary_bytes, dictionaries)
    return Footprint(num_bytes, dictionary_bytes, largest)


@dataclass(frozen=True, slots=True)
class _Page:
    kind: int
    uncompressed: int
    compressed: int
    num_values: int


def _pages(file: IO[bytes], column: pq.ColumnChunkMetaData) -> Iterator[_Page]:
    """The pages of a column chunk, one header after the other."""
    starts = [place for place in (column.dictionary_page_offset, column.data_page_offset) if place]
    position = min(starts)
    end = position + column.total_compressed_size
    while position < end:
        file.seek(position)
        thrift = _Compact(file.read(min(_HEADER_BYTES, end - position)))
        try:
            fields = thrift.struct()
            counts = [fields[name][1] for name in (_DATA, _DICTIONARY, _DATA_V2) if name in fields]
            page = _Page(fields[_TYPE], fields[_UNCOMPRESSED], fields[_COMPRESSED], sum(counts))
        except (IndexError, KeyError, TypeError) as error:
            raise BadPages(f"column {column.path_in_schema!r} has a broken page header at byte {position}") from error
        if min(page.uncompressed, page.compressed, page.num_values) < 0:
            raise BadPages(f"column {column.path_in_schema!r} has a page of negative size at byte {position}")
        yield page
        position += thrift.position + page.compressed


class _Compact:
    """Reads values of Thrift's compact protocol; IndexError where they are cut short."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The fields of a struct by their number."""
        if depth > _MAX_DEPTH:
            raise IndexError("nested too deep")
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            fields[number] = self._value(head & 0xF, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            return self._byte()
        if kind == _DOUBLE:
            return self._skip(8)
        if kind == _BINARY:
            return self._skip(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            head = self._byte()
            length = self._varint() if head >> 4 == 15 else head >> 4
            self._skip_list(head & 0xF, length, depth + 1)
            return None
        if kind == _MAP:
            raise IndexError("a page header holds no map")
        return self._zigzag()

    def _skip_list(self, kind: int, length: int, depth: int) -> None:
        """Go past a list's elements, of which each takes a byte at least: no field that is read is a list."""
        if depth > _MAX_DEPTH:
            raise IndexError("nested too deep")
        if kind in (_TRUE, _FALSE):  # in a list they are bytes of their own, in a struct part of the field's head
            self._skip(length)
            return
        for _ in range(length):
            self._value(kind, depth)

    def _byte(self) -> int:
        value = self.data[self.position]
        self.position += 1
        return value

    def _skip(self, num_bytes: int) -> None:
        self.position += num_bytes
        if self.position > len(self.data):
            raise IndexError("cut short")

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value
            if shift > 63:
                raise IndexError("a number of more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
