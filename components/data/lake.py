"""The lake: immutable parts, small records that point at them, and model folders, on a local disk or S3.

What belongs here: where things lie, and writing them whole or not at all. What does not: what the tables mean
(``components.schemas``) and when something is made again (``components.pipeline``).

Layout::

    <asset>/<shard>/<digest>.parquet          a table's part          <asset>/<shard>/current.json   its record
    <asset>/<digest>.json                     a manifest              <asset>/current.json
    models/<asset>/<version>/...              a Hugging Face folder   models/<asset>/{current.json,latest}
    reports/<asset>/<version>/...             a report                reports/<asset>/latest/...

Every record is also kept under its own version (``<version>.record.json``), so that old manifests stay readable.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from components.schemas import TableContract

Kind = Literal["table", "manifest", "model", "report"]
ROWS_PER_GROUP = 512  # one row group is one unit of work for a captioning or encoding worker


class LakeError(RuntimeError):
    """The lake cannot be read or written; the message names the place and the remedy."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the lake knows of one materialization: a table's shard, a manifest, a model or a report.

    ``path`` is relative to the lake; ``data_version`` is a digest of content; ``inputs`` maps each parent to the data
    version that was read; ``verdict`` is None or says why later stages must refuse this data.
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
    peak_memory_gib: float = 0.0


class Lake:
    """Reads and writes under one fsspec URI (a local path or ``s3://``; ``AWS_ENDPOINT_URL`` is honoured)."""

    def __init__(self, uri: str) -> None:
        self.fs, root = fsspec.core.url_to_fs(uri)
        self.root = str(root).rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the lake lies on this machine's disk."""
        return isinstance(self.fs, LocalFileSystem)

    def uri(self, path: str = "") -> str:
        """The full URI of a path in the lake."""
        return self.fs.unstrip_protocol(f"{self.root}/{path}") if not self.is_local else f"{self.root}/{path}"

    def check_writable(self) -> None:
        """Raise :class:`LakeError` now rather than after hours of work."""
        probe = f".writable-{uuid.uuid4().hex}"
        try:
            self.write_bytes(probe, b"")
            self.fs.rm_file(f"{self.root}/{probe}")
        except OSError as error:
            raise LakeError(
                f"the lake {self.uri()} is not writable ({error}); check its permissions and free space, or point "
                "ATELIER_LAKE (a path or s3://bucket/prefix) somewhere else"
            ) from error

    # ------------------------------------------------------------------------------------------------------- bytes
    def write_bytes(self, path: str, data: bytes) -> None:
        """Put a whole file at ``path``: readers see the old one or the new one, never a part."""
        target = f"{self.root}/{path}"
        if not self.is_local:
            self.fs.pipe_file(target, data)
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        partial = f"{target}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial"
        try:
            Path(partial).write_bytes(data)
            Path(partial).replace(target)
        finally:
            Path(partial).unlink(missing_ok=True)

    def read_bytes(self, path: str) -> bytes:
        """A whole file; :class:`LakeError` naming it where there is none."""
        try:
            return self.fs.cat_file(f"{self.root}/{path}")
        except FileNotFoundError as error:
            raise LakeError(f"{self.uri(path)} is missing from the lake; materialize the asset again") from error

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there now."""
        self.fs.invalidate_cache()
        return self.fs.exists(f"{self.root}/{path}")

    def write_json(self, path: str, value: Any) -> None:
        """Put a JSON file with sorted keys."""
        self.write_bytes(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode())

    def read_json(self, path: str) -> Any:
        """The value of a JSON file."""
        return json.loads(self.read_bytes(path))

    # ------------------------------------------------------------------------------------------------------ tables
    def write_table(self, folder: str, table: pa.Table, contract: TableContract) -> tuple[str, str]:
        """Write an immutable part named by the digest of its bytes; (path, digest).

        Raises ``ValueError`` or ``KeyError`` naming the column where the table breaks its contract.
        """
        data, digest = part_of(table, contract)
        path = f"{folder}/{digest}.parquet"
        if not self.exists(path):
            self.write_bytes(path, data)
        return path, digest

    def read_table(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A whole part, or some of its columns."""
        with self.fs.open(f"{self.root}/{path}", "rb") as file:
            return pq.read_table(file, columns=list(columns) if columns else None)

    def row_groups(self, path: str) -> int:
        """How many row groups a part has; each holds at most ``ROWS_PER_GROUP`` rows."""
        with self.fs.open(f"{self.root}/{path}", "rb") as file:
            return pq.ParquetFile(file).num_row_groups

    def batches(self, path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """A part's rows a row group at a time, so that no table is held in memory."""
        with self.fs.open(f"{self.root}/{path}", "rb") as file:
            yield from pq.ParquetFile(file).iter_batches(batch_size=ROWS_PER_GROUP, columns=list(columns))

    # ----------------------------------------------------------------------------------------------------- records
    @staticmethod
    def place(asset: str, kind: Kind, shard: str | None = None) -> str:
        """The folder of an asset (or of one of its shards)."""
        prefix = {"model": "models/", "report": "reports/"}.get(kind, "")
        return f"{prefix}{asset}" + (f"/{shard}" if shard is not None else "")

    def record(self, asset: str, kind: Kind, shard: str | None = None) -> Record | None:
        """The current record, or None where the asset was never made."""
        path = f"{self.place(asset, kind, shard)}/current.json"
        return Record(**self.read_json(path)) if self.exists(path) else None

    def record_of(self, asset: str, kind: Kind, data_version: str, shard: str | None = None) -> Record:
        """The record of one version, current or not."""
        return Record(**self.read_json(f"{self.place(asset, kind, shard)}/{data_version}.record.json"))

    def versions(self, asset: str, kind: Kind, shard: str | None = None) -> Iterator[Record]:
        """The records of all versions, the current one first, then from the newest to the oldest."""
        current = self.record(asset, kind, shard)
        if current is None:
            return
        yield current
        folder = f"{self.root}/{self.place(asset, kind, shard)}"
        paths = [str(path) for path in self.fs.glob(f"{folder}/*.record.json")]
        for path in sorted(paths, key=lambda each: (self.fs.modified(each), each), reverse=True):
            name = PurePosixPath(path).name.removesuffix(".record.json")
            if name != current.data_version:
                yield self.record_of(asset, kind, name, shard)

    def records(self, asset: str, kind: Kind = "table") -> dict[str, Record]:
        """The current record of every shard, by shard, in order."""
        self.fs.invalidate_cache()
        found = self.fs.glob(f"{self.root}/{self.place(asset, kind)}/*/current.json")
        shards = sorted(PurePosixPath(str(path)).parent.name for path in found)
        return {shard: record for shard in shards if (record := self.record(asset, kind, shard)) is not None}

    def set_current(self, record: Record) -> None:
        """Make a record the current one; the last write of a materialization."""
        folder = self.place(record.asset, record.kind, record.shard)
        self.write_json(f"{folder}/{record.data_version}.record.json", asdict(record))
        self.write_json(f"{folder}/current.json", asdict(record))
        if record.kind == "model" and record.path:
            self.write_bytes(f"{folder}/latest", record.data_version.encode())

    # ----------------------------------------------------------------------------------------------------- folders
    def add_folder(self, place: str, folder: Path) -> str:
        """Copy a local folder to ``<place>/<version>``, where the version is the digest of its files; the version."""
        version = folder_digest(folder)
        target = f"{self.root}/{place}/{version}"
        if self.exists(f"{place}/{version}") and self.is_local:
            return version
        if self.is_local:
            partial = f"{target}.{os.getpid()}.partial"
            shutil.copytree(folder, partial)
            try:
                Path(partial).rename(target)
            except OSError:
                shutil.rmtree(partial)
                if not Path(target).is_dir():
                    raise
        else:
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                self.fs.pipe_file(f"{target}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        return version

    def fetch_folder(self, path: str, scratch: Path) -> Path:
        """A local path to a folder of the lake: itself on a local disk, else a whole copy under ``scratch``."""
        if self.is_local:
            return Path(self.root) / path
        target = scratch / "models" / hashlib.sha256(self.uri(path).encode()).hexdigest()[:16]
        if not target.is_dir():
            partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
            for remote in self.fs.find(f"{self.root}/{path}"):
                local = partial / PurePosixPath(str(remote)).relative_to(f"{self.root}/{path}")
                local.parent.mkdir(parents=True, exist_ok=True)
                local.write_bytes(self.fs.cat_file(remote))
            if not target.is_dir():
                partial.rename(target)
        return target


class ReadOnlyLake(Lake):
    """The same lake for a dry run: what would be written is left out, and digests are those it would have had."""

    def write_bytes(self, path: str, data: bytes) -> None:
        """Leave the lake as it is."""

    def add_folder(self, place: str, folder: Path) -> str:
        """The version that the folder would be kept under."""
        return folder_digest(folder)

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
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(file.relative_to(folder).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


def digest_of(value: Any) -> str:
    """Digest of a JSON value (16 hexadecimal digits), whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
