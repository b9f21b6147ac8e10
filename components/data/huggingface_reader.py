"""Rows from folders that Hugging Face ``datasets`` wrote with ``save_to_disk``: Arrow streams and two small JSON files.

What belongs here: finding the Arrow files and reading them, memory-mapped. What does not: dataset scripts and pickles,
which are never run or loaded, and what a table's columns mean (``table_rows``).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from .sources import MAX_TEXT_BYTES, UnreadableShard, open_local_shard, open_storage, resolve_places
from .table_rows import PendingRow, TableLayout, TableReader

STATE, SPLITS = "state.json", "dataset_dict.json"
MAX_SCHEMA_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class HuggingFaceReader(TableReader):
    """Reads each Arrow file of ``uris`` as a shard; columns are found as in Parquet (``contracts.Reader``).

    A remote file is fetched into a temporary one first. Without a key column the key is the row's place.
    """

    def _rows(self, shard: int, *, with_images: bool) -> Iterator[PendingRow]:
        uri = self.uris[shard]
        with open_local_shard(uri) as file, pa.memory_map(file.name) as mapped:
            messages = pa.ipc.MessageReader.open_stream(mapped)
            first = _next_message(messages)
            if first is None or first.type != "schema":
                raise UnreadableShard(uri, "it does not begin with an Arrow schema")
            if first.metadata.size > MAX_SCHEMA_BYTES:
                raise UnreadableShard(uri, f"its schema has {first.metadata.size} bytes")
            schema = pa.ipc.read_schema(first)
            layout = TableLayout.find(self.columns, uri, schema)
            if any(_has_dictionary(field.type) for field in schema):
                raise UnreadableShard(uri, "it holds dictionary-encoded columns, which save_to_disk does not write")
            position = 0
            while (message := _next_message(messages)) is not None:
                if message.type != "record batch" or _is_compressed(message.metadata.to_pybytes()):
                    raise UnreadableShard(uri, f"it holds a compressed or other message ({message.type})")
                batch = pa.ipc.read_record_batch(message, _loosened(schema))
                batch.validate(full=True)  # offsets that lead out of the file would be followed
                yield from layout.rows(batch, shard, position, with_images=with_images)
                position += batch.num_rows


def arrow_files(uri: str, split: str | None) -> list[str]:
    """The Arrow files of the folder (or glob of folders) that ``save_to_disk`` wrote, in order.

    ``split`` chooses one of a ``DatasetDict``. Raises FileNotFoundError or ValueError saying what to give instead.
    """
    files = []
    for folder in resolve_places(uri):
        fs, path = open_storage(folder)
        if fs.exists(f"{path}/{SPLITS}"):
            splits = _read_json(fs, f"{path}/{SPLITS}").get("splits")
            names = [str(name) for name in splits] if isinstance(splits, list) else []
            if split not in names and (split is not None or len(names) != 1):
                raise ValueError(f"{folder} has the splits {', '.join(names)}; set source.split to one of them")
            folder, path = (f"{place}/{split or names[0]}" for place in (folder, path))
        if not fs.exists(f"{path}/{STATE}"):
            raise FileNotFoundError(
                f"{folder} holds no {STATE}, so Dataset.save_to_disk did not write it; for Parquet files on the hub or "
                "in its cache use format: parquet"
            )
        state = _read_json(fs, f"{path}/{STATE}")
        if state.get("_indices_data_files"):
            raise ValueError(f"{folder} was saved with a selection beside its rows; save dataset.flatten_indices()")
        entries = state.get("_data_files")
        for entry in entries if isinstance(entries, list) else []:
            name = str(entry.get("filename")) if isinstance(entry, dict) else ""
            if PurePosixPath(name).name != name or not name.endswith(".arrow"):
                raise ValueError(f"{folder}/{STATE} names {name!r}, which is no Arrow file of that folder")
            files.append(f"{folder}/{name}")
    if not files:
        raise FileNotFoundError("its state names no Arrow file")
    return files


def _read_json(fs: Any, path: str) -> dict[str, Any]:
    content = json.loads(fs.cat_file(path, start=0, end=MAX_TEXT_BYTES))
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no object")
    return content


def _next_message(messages: pa.ipc.MessageReader) -> pa.ipc.Message | None:
    try:
        return messages.read_next_message()
    except StopIteration:
        return None


def _loosened(schema: pa.Schema) -> pa.Schema:
    """The schema with texts as bytes, which lie in memory alike: one text that is not UTF-8 must cost its row alone."""
    return pa.schema([field.with_type(_loosened_type(field.type)) for field in schema])


def _loosened_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_loosened_type(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_loosened_type(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_loosened_type(field.type)) for field in kind])
    return kind


def _has_dictionary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return True
    return any(_has_dictionary(kind.field(i).type) for i in range(kind.num_fields))


def _is_compressed(metadata: bytes) -> bool:
    """Whether a record batch's buffers are compressed, and so may be larger than they look.

    Reads the flat buffer of Arrow's ``Message``: field 2 is the ``RecordBatch``, whose field 3 is the compression.
    """
    try:
        batch = _table_field(metadata, struct.unpack_from("<I", metadata)[0], 2)
        return batch is None or _table_field(metadata, batch, 3) is not None
    except struct.error:
        return True


def _table_field(data: bytes, table: int, number: int) -> int | None:
    """Where the table lies that a field of a flat buffer's table points at, or None where the field is absent."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", data, vtable)[0]:
        return None
    place = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
    return table + place + struct.unpack_from("<I", data, table + place)[0] if place else None
