"""The lake: immutable parts, small records that point at them, and model folders, on a local disk or S3.

What belongs here: where things lie, and writing them whole or not at all. What does not: what the tables mean
(``components.schemas``) and when something is made again (``components.pipeline``).

Layout::

    <asset>/<shard>/<digest>.parquet          a table's part          <asset>/<shard>/current.json   its record
    <asset>/<digest>.json                     a manifest              <asset>/current.json
    models/<asset>/<version>/...              a Hugging Face folder   models/<asset>/{current.json,latest}
    reports/<asset>/<version>/...             a report                reports/<asset>/latest/...
    rejected/<shard>/<digest>.parquet         rows set aside; image_set in a shard's place: those across shards
    checkpoints/<asset>-<fingerprint>/...     of a training until its model is registered
    rollbacks/<asset>/<time>-<random>.json    which champion was taken back, by whom and why

Every record is also kept under its own version (``<version>.record.json``), so that old manifests stay readable. A
``current.json`` is written last: what it names is whole. Bytes that are still being written have hidden names
(``.<name>.<random>.partial``), on S3 none at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from components.schemas import TableContract, type_name

from .storage import Storage, StorageError, files_below, partial_path

Kind = Literal["table", "manifest", "model", "report"]
CURRENT, LATEST, RECORD = "current.json", "latest", ".record.json"
PROBE = ".writable-"
ROWS_PER_GROUP = 512  # one row group is one unit of work for a captioning or encoding worker


class LakeError(StorageError):
    """The lake cannot be read or written; the message names the place and the remedy."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the lake knows of one materialization: a table's shard, a manifest, a model or a report.

    ``path`` is relative to the lake; ``data_version`` is a digest of content; ``inputs`` maps each parent to the data
    version that was read; ``verdict`` is None or says why later stages must refuse this data. ``seconds`` are of wall
    time; ``cost`` is what CPU and GPU seconds came to at the prices of their day, None where nothing was measured.
    """

    asset: str
    kind: Kind
    dataset: str
    recipe: str
    fingerprint: str
    data_version: str
    path: str
    shard: str | None = None
    num_rows: int | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    verdict: str | None = None
    registry: str | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    peak_memory_gib: float = 0.0
    cost: float | None = None


class Lake(Storage):
    """Reads and writes under one fsspec URI (a local path or ``s3://``; ``AWS_ENDPOINT_URL`` is honoured)."""

    def check_writable(self) -> None:
        """Raise :class:`LakeError` now rather than after hours of work."""
        probe = f"{PROBE}{uuid.uuid4().hex}"
        try:
            self.write_bytes(probe, bytes(4096))  # an empty file fits on a full disk
            self.remove(probe)
        except (StorageError, OSError) as error:
            raise LakeError(
                f"the lake {self.uri()} is not writable ({error}); check its permissions and free space, or point "
                "ATELIER_LAKE (a path or s3://bucket/prefix) somewhere else"
            ) from error

    # ------------------------------------------------------------------------------------------------------- bytes
    def read_bytes(self, path: str) -> bytes:
        """A whole file; :class:`LakeError` naming it where there is none."""
        with self._present(path):
            return super().read_bytes(path)

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """A file's bytes, seekable; :class:`LakeError` naming it where there is none."""
        with self._present(path), super().open(path) as file:
            yield file

    @contextmanager
    def _present(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise LakeError(f"{self.uri(path)} is missing from the lake; materialize the asset again") from error

    def write_json(self, path: str, value: Any) -> None:
        """Put a JSON file with sorted keys."""
        self.write_bytes(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode())

    def read_json(self, path: str) -> Any:
        """The value of a JSON file."""
        return json.loads(self.read_bytes(path))

    # ------------------------------------------------------------------------------------------------------ tables
    def write_table(self, folder: str, table: pa.Table, contract: TableContract) -> tuple[str, str]:
        """Write an immutable part named by the digest of its bytes; (path, digest).

        A part that is there already is written once more: that makes it young, so that ``gc`` leaves it to its record.
        Raises ``ValueError`` or ``KeyError`` naming the column where the table breaks its contract.
        """
        data, digest = part_of(table, contract)
        path = f"{folder}/{digest}.parquet"
        self.write_bytes(path, data)
        return path, digest

    def read_table(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A whole part, or some of its columns."""
        with self.open(path) as file:
            return pq.read_table(file, columns=list(columns) if columns else None)

    def read_known(self, path: str, columns: Sequence[str], filters: Any = None) -> pa.Table:
        """Some columns of the rows that pass a filter of pyarrow's; null where an older schema's part has no such one.

        The filter's columns must be there.
        """
        with self.open(path) as file:
            present = set(pq.read_schema(file).names)
            table = pq.read_table(file, columns=[name for name in columns if name in present], filters=filters)
        for name in columns:
            if name not in present:
                table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
        return table.select(list(columns))

    def columns(self, path: str) -> dict[str, str]:
        """Names and types of a part's columns, from its footer."""
        with self.open(path) as file:
            return {field.name: type_name(field.type) for field in pq.read_schema(file)}

    def row_group_sizes(self, path: str) -> list[int]:
        """How many rows each row group of a part has; at most ``ROWS_PER_GROUP``."""
        with self.open(path) as file:
            metadata = pq.ParquetFile(file).metadata
            return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]

    def batches(self, path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """A part's rows a row group at a time, so that no table is held in memory."""
        with self.open(path) as file:
            yield from pq.ParquetFile(file).iter_batches(batch_size=ROWS_PER_GROUP, columns=list(columns))

    # ----------------------------------------------------------------------------------------------------- records
    @staticmethod
    def place(asset: str, kind: Kind, shard: str | None = None) -> str:
        """The folder of an asset (or of one of its shards)."""
        prefix = {"model": "models/", "report": "reports/"}.get(kind, "")
        return f"{prefix}{asset}" + (f"/{shard}" if shard is not None else "")

    def record(self, asset: str, kind: Kind, shard: str | None = None) -> Record | None:
        """The current record, or None where the asset was never made."""
        path = f"{self.place(asset, kind, shard)}/{CURRENT}"
        found = self.read_many([path])
        return Record(**json.loads(found[path])) if found else None

    def record_path(self, asset: str, kind: Kind, data_version: str, shard: str | None = None) -> str:
        """Where the record of one version lies."""
        return f"{self.place(asset, kind, shard)}/{data_version}{RECORD}"

    def record_of(self, asset: str, kind: Kind, data_version: str, shard: str | None = None) -> Record:
        """The record of one version, current or not."""
        return Record(**self.read_json(self.record_path(asset, kind, data_version, shard)))

    def versions(self, asset: str, kind: Kind, shard: str | None = None) -> Iterator[Record]:
        """The records of all versions, the current one first, then from the newest to the oldest."""
        current = self.record(asset, kind, shard)
        if current is None:
            return
        yield current
        folder = f"{self.root}/{self.place(asset, kind, shard)}"
        depth = "**/*" if kind == "manifest" else "*"  # a manifest's data version may hold a slash: ssc/1,dsc/1
        paths = [str(path) for path in self.fs.glob(f"{folder}/{depth}{RECORD}")]
        for path in sorted(paths, key=lambda each: (self.fs.modified(each), each), reverse=True):
            name = path[path.rindex(folder) + len(folder) + 1 :].removesuffix(RECORD)
            if name != current.data_version:
                yield self.record_of(asset, kind, name, shard)

    def records(self, asset: str, kind: Kind = "table") -> dict[str, Record]:
        """The current record of every shard, by shard, in order."""
        place = self.place(asset, kind)
        found = self.read_many([f"{place}/{shard}/{CURRENT}" for shard in self.folders(place)])
        return {PurePosixPath(path).parent.name: Record(**json.loads(data)) for path, data in sorted(found.items())}

    def set_current(self, record: Record) -> None:
        """Make a record the current one; its last write decides, and what came before it is repeated by a rerun."""
        folder = self.place(record.asset, record.kind, record.shard)
        self.write_json(self.record_path(record.asset, record.kind, record.data_version, record.shard), asdict(record))
        if record.kind == "model" and record.path:
            self.write_bytes(f"{folder}/{LATEST}", record.data_version.encode())
        self.write_json(f"{folder}/{CURRENT}", asdict(record))

    # ----------------------------------------------------------------------------------------------------- folders
    def add_folder(self, place: str, folder: Path) -> str:
        """Copy a local folder to ``<place>/<version>``, where the version is the digest of its files; the version.

        A folder of that name whose files are no longer those is put right.
        On a remote storage files appear one by one: until the record names the version, or :meth:`fetch_folder` has
        found its digest right, it must not be trusted.
        """
        version = folder_digest(folder)
        path = f"{place}/{version}"
        if self.is_local and self.exists(path):
            if folder_digest(Path(self.root) / path) == version:
                os.utime(f"{self.root}/{path}")  # young again, so that gc leaves it to its record
                return version
            self.remove_folder(path)
        self.put_folder(path, folder)
        wanted = {f"{path}/{file.relative_to(folder).as_posix()}" for file in files_below(folder)}
        for foreign in set(self.files(path)) - wanted:  # which would change the digest of the copy
            self.remove(foreign)
        return version

    def fetch_folder(self, path: str, scratch: Path) -> Path:
        """A local path to a version's folder: itself on a local disk, else a whole copy under ``scratch``.

        Raises :class:`LakeError` where it is missing, or a copy does not have the digest that is its name.
        """
        if self.is_local:
            return Path(self.root) / path
        target = scratch / "models" / hashlib.sha256(self.uri(path).encode()).hexdigest()[:16]
        if target.is_dir():
            return target
        partial = partial_path(target)
        partial.mkdir(parents=True)
        try:
            for file in self.files(path):
                local = partial / PurePosixPath(file).relative_to(path)
                local.parent.mkdir(parents=True, exist_ok=True)
                local.write_bytes(self.read_bytes(file))
            if folder_digest(partial) != PurePosixPath(path).name:
                raise LakeError(
                    f"{self.uri(path)} is missing or not whole: its files do not have the digest that is its name; "
                    "materialize the asset again with --force (in the launchpad: force of the resource recipe)"
                )
            try:
                partial.rename(target)
            except OSError:
                if not target.is_dir():  # else another process has fetched it meanwhile
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target


class ReadOnlyLake(Lake):
    """The same lake for a dry run: what would be written is left out, and digests are those it would have had."""

    def write_bytes(self, path: str, data: bytes) -> None:
        """Leave the lake as it is."""

    def put_file(self, path: str, file: Path) -> None:
        """Leave the lake as it is."""

    def put_folder(self, path: str, folder: Path) -> None:
        """Leave the lake as it is."""

    def remove(self, path: str) -> None:
        """Leave the lake as it is."""

    def remove_folder(self, path: str) -> None:
        """Leave the lake as it is."""

    def check_writable(self) -> None:
        """Nothing will be written."""


def part_of(table: pa.Table, contract: TableContract) -> tuple[bytes, str]:
    """The bytes of a table's part and their digest (16 hexadecimal digits), by which the part is named."""
    conforming = table.select(contract.schema.names).cast(contract.schema)
    sink = io.BytesIO()
    pq.write_table(conforming, sink, row_group_size=ROWS_PER_GROUP, compression="zstd")
    return sink.getvalue(), hashlib.sha256(sink.getvalue()).hexdigest()[:16]


def folder_digest(folder: Path) -> str:
    """Digest of the names and bytes of all files below a folder (16 hexadecimal digits)."""
    total = hashlib.sha256()
    for path in files_below(folder):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


def digest_of(value: Any) -> str:
    """Digest of a JSON value (16 hexadecimal digits), whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
