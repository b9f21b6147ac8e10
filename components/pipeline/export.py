"""The way out: pictures and captions of a data set as files that other trainers read.

What belongs here: which rows leave, and the three layouts. What does not: writing a file whole (``data.storage``).

Layouts, one file or folder for each shard of the data set:

* ``webdataset``: ``00000.tar`` with ``<name>.png``, ``.txt`` and ``.json`` for each row;
* ``parquet``: ``00000.parquet`` in img2dataset's form, the picture in a column named after its encoding;
* ``files``: ``00000/<name>.png`` and ``.txt``, with a ``metadata.jsonl`` as Hugging Face's ImageFolder reads it.

``caption`` is the chosen caption, the others stand beside it. ``<name>`` is the key with what file systems and
webdataset cannot have in a name written as %XX; the key itself stands in the metadata. The same lake gives the same
bytes. ``export.json`` is written last and removed before anything else is touched: where it is, the export is whole. A
run that was ended goes on where it stood. A later run writes shards anew whose rows have changed, and removes those
that the data set has no more.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from components.data.catalog import split_of
from components.data.lake import Record, digest_of
from components.data.storage import Storage

from .progress import tracked
from .workspace import UnfitParent, Workspace

log = logging.getLogger(__name__)
FORM = 1  # raised when the same rows would be written differently
DONE, STATE, PLAN = "export.json", ".export", ".export/plan.json"
MAX_NAME = 180  # bytes of a name; file systems take 255, with an ending and a hidden name's addition
BATCH_ROWS = 256

Format = Literal["webdataset", "parquet", "files"]
CaptionKind = Literal["caption", "ssc", "dsc"]
ENDINGS: Mapping[Format, str] = {"webdataset": ".tar", "parquet": ".parquet", "files": ""}
Row = Mapping[str, Any]

FIELDS = pa.schema(
    [
        ("key", pa.string()),
        ("caption", pa.string()),
        ("original_caption", pa.string()),
        ("ssc", pa.string()),
        ("dsc", pa.string()),
        ("ssc_captioner", pa.string()),
        ("dsc_captioner", pa.string()),
        ("ssc_score", pa.float32()),
        ("dsc_score", pa.float32()),
        ("split", pa.string()),
        ("url", pa.string()),
        ("license", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
        ("source_sha256", pa.string()),
    ]
)


class ExportError(RuntimeError):
    """Nothing can be exported there; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What leaves: a layout, the caption that stands first, a split, and shards (empty: all)."""

    format: Format
    caption: CaptionKind
    split: Literal["all", "train", "evaluation"] = "all"
    shards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShardExport:
    """One shard's file or folder: rows that left, and how many stayed behind for each reason."""

    path: str
    num_rows: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    is_reused: bool = False


def default_caption(ws: Workspace) -> CaptionKind:
    """Descriptive captions where every shard of the image set has them, else the original ones."""
    _, images = ws.read_manifest("image_set")
    present = ws.lake.records("recaptioned")
    return "dsc" if all(entry["shard"] in present for entry in images["shards"]) else "caption"


def export(ws: Workspace, target: str, plan: ExportPlan) -> list[ShardExport]:
    """Write what ``plan`` says below a path or URI; shards that an earlier run has written of the same rows are kept.

    Raises :class:`ExportError` where another export lies there, :class:`UnfitParent` where an asset is missing, and
    :class:`components.data.storage.StorageError` naming the file that cannot be written.
    """
    image_set, images = ws.read_manifest("image_set")
    chosen = [entry for entry in images["shards"] if not plan.shards or entry["shard"] in plan.shards]
    if unknown := set(plan.shards) - {entry["shard"] for entry in chosen}:
        last = images["shards"][-1]["shard"]
        raise ExportError(f"there is no shard {', '.join(sorted(unknown))}; there are 00000 to {last}")
    storage = Storage(target)
    _claim(storage, ws, plan)
    shards = [_Shard(ws, plan, entry, frozenset(images["opted_out"])) for entry in chosen]
    storage.remove(DONE)
    for gone in sorted(_noted(storage) - {shard.name for shard in shards}):
        _remove(storage, plan.format, gone)
    done = [shard.write(storage) for shard in tracked(shards, log, "export", len(shards), "shards")]
    written = [{**asdict(one), "is_reused": False} for one in done]
    content = {"dataset": ws.dataset.name, "image_set": image_set.data_version, "shards": written}
    storage.write_bytes(DONE, _json({**content, **_settings(ws, plan)}))
    return done


def _settings(ws: Workspace, plan: ExportPlan) -> dict[str, Any]:
    return {"plan": asdict(plan), "form": FORM, "evaluation_fraction": ws.dataset.evaluation_fraction}


def _claim(storage: Storage, ws: Workspace, plan: ExportPlan) -> None:
    """Note what is exported here; refuse a place that holds something else."""
    settings = json.loads(_json({"dataset": ws.dataset.name, **_settings(ws, plan)}))
    found = storage.read_many([PLAN])
    if not found:
        if storage.files():
            raise ExportError(f"{storage.uri()} is not empty and holds no export; name an empty or a new folder")
        storage.write_bytes(PLAN, _json(settings))
    elif json.loads(found[PLAN]) != settings:
        raise ExportError(
            f"{storage.uri()} holds an export of other rows or of another form; name another folder, or remove it first"
        )


def _note_of(shard: str) -> str:
    """Where it stands what has been written of a shard."""
    return f"{STATE}/{shard}.json"


def _noted(storage: Storage) -> set[str]:
    """The shards that earlier runs have written."""
    return {Path(path).stem for path in storage.files(STATE) if path.endswith(".json") and path != PLAN}


def _remove(storage: Storage, form: Format, shard: str) -> None:
    """Remove what there is of a shard; its note goes first, for it vouches for the rest."""
    storage.remove(_note_of(shard))
    (storage.remove_folder if form == "files" else storage.remove)(f"{shard}{ENDINGS[form]}")


class _Shard:
    """One shard on its way out."""

    def __init__(self, ws: Workspace, plan: ExportPlan, entry: Mapping[str, Any], opted_out: frozenset[str]) -> None:
        self.ws, self.plan, self.name, self.opted_out = ws, plan, entry["shard"], opted_out
        self.set_aside = frozenset(entry.get("set_aside", ()))  # numbers of rows that are copies of others
        self.part = ws.lake.record_of("raw_pairs", "table", entry["data_version"], entry["shard"])
        self.captions = self._captions()
        version = self.captions.data_version if self.captions else None
        keys = sorted(opted_out) if opted_out else []
        left_out = [keys, sorted(self.set_aside)]
        self.fingerprint = digest_of([_settings(ws, plan), self.part.data_version, version, left_out])

    def _captions(self) -> Record | None:
        record = self.ws.lake.record("recaptioned", "table", self.name)
        if record is not None and record.inputs.get("raw_pairs") == self.part.data_version:
            return record
        if self.plan.caption != "caption":
            raise UnfitParent(
                f"recaptioned[{self.name}] is missing or was written for older pictures: materialize it, or export "
                "with --caption caption"
            )
        return None

    def write(self, storage: Storage) -> ShardExport:
        """Write the shard, or find it written."""
        path, note = f"{self.name}{ENDINGS[self.plan.format]}", _note_of(self.name)
        earlier = {name: json.loads(data) for name, data in storage.read_many([note]).items()}.get(note)
        if earlier and earlier.pop("fingerprint") == self.fingerprint and storage.exists(path):
            return ShardExport(**{**earlier, "is_reused": True})
        _remove(storage, self.plan.format, self.name)
        left_out: Counter[str] = Counter()
        write = {"webdataset": self._write_tar, "parquet": self._write_parquet, "files": self._write_files}
        num_rows = write[self.plan.format](storage, path, self._rows(left_out))
        done = ShardExport(path, num_rows, dict(sorted(left_out.items())))
        storage.write_bytes(note, _json({**asdict(done), "fingerprint": self.fingerprint}))
        return done

    # ---------------------------------------------------------------------------------------------------------- layouts
    def _write_tar(self, storage: Storage, path: str, rows: Iterator[tuple[Row, bytes]]) -> int:
        num_rows = 0
        with storage.create(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for row, image in rows:
                name = file_name(row["key"])
                members = {encoding_of(image): image, "txt": row["caption"].encode(), "json": _json(row)}
                for ending, data in members.items():
                    member = tarfile.TarInfo(f"{name}.{ending}")  # no time, no owner: the same bytes every time
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                num_rows += 1
        return num_rows

    def _write_parquet(self, storage: Storage, path: str, rows: Iterator[tuple[Row, bytes]]) -> int:
        with storage.create(path) as file:
            return write_parquet(file, rows)

    def _write_files(self, storage: Storage, path: str, rows: Iterator[tuple[Row, bytes]]) -> int:
        num_rows = 0
        with tempfile.TemporaryDirectory(prefix="atelier-") as temporary:
            folder = Path(temporary)
            with (folder / "metadata.jsonl").open("w", encoding="utf-8") as metadata:
                for row, image in rows:
                    name = file_name(row["key"])
                    picture = f"{name}.{encoding_of(image)}"
                    (folder / picture).write_bytes(image)
                    (folder / f"{name}.txt").write_bytes(row["caption"].encode())
                    metadata.write(json.dumps({"file_name": picture, **row}, ensure_ascii=False) + "\n")
                    num_rows += 1
            storage.put_folder(path, folder)
        return num_rows

    # ------------------------------------------------------------------------------------------------------------- rows
    def _rows(self, left_out: Counter[str]) -> Iterator[tuple[Row, bytes]]:
        """The rows that leave, in key order, a row group in memory at a time; the others are counted."""
        written: dict[str, Row] = {}
        if self.captions is not None:
            written = {row["key"]: row for row in self.ws.lake.read_table(self.captions.path).to_pylist()}
        columns = ["key", "image", "width", "height", "sha256", "source_sha256", "caption", "source", "license"]
        stored = (raw for batch in self.ws.lake.batches(self.part.path, columns) for raw in batch.to_pylist())
        for number, raw in enumerate(stored):
            row = "a copy" if number in self.set_aside else self._row(raw, written.get(raw["key"], {}))
            if isinstance(row, str):
                left_out[row] += 1
            else:
                yield row, raw["image"]

    def _row(self, raw: Row, written: Row) -> Row | str:
        """A row as it leaves, or why it stays."""
        split = split_of(raw["key"], self.ws.dataset.evaluation_fraction)
        if raw["key"] in self.opted_out:
            return "opted out"
        if self.plan.split not in ("all", split):
            return f"in the {split} split"
        kind = self.plan.caption
        if kind != "caption" and (written.get("rejected") or not written.get(kind)):
            return f"its {kind} was rejected"
        texts = {name: written.get(name) for name in FIELDS.names if name.startswith(("ssc", "dsc"))}
        caption = raw["caption"] if kind == "caption" else written[kind]
        named = {"caption": caption, "original_caption": raw["caption"], "split": split, "url": raw["source"]}
        values = {**raw, **texts, **named, "status": "success", "error_message": None}
        return {name: values[name] for name in FIELDS.names}


def write_parquet(file: IO[bytes], rows: Iterator[tuple[Row, bytes]]) -> int:
    """Rows in img2dataset's form; the column of pictures is named after the first one's encoding (png where none)."""
    writer: pq.ParquetWriter | None = None
    num_rows = 0
    try:
        for batch in _batches(rows):
            column = writer.schema.names[-1] if writer else encoding_of(batch[0][1]) if batch else "png"
            table = pa.Table.from_pylist([{**row, column: image} for row, image in batch], _schema(column))
            writer = writer or pq.ParquetWriter(file, _schema(column), compression="zstd")
            writer.write_table(table)
            num_rows += len(batch)
    finally:
        if writer:
            writer.close()
    return num_rows


def _schema(column: str) -> pa.Schema:
    return FIELDS.append(pa.field(column, pa.binary()))


def _batches(rows: Iterator[tuple[Row, bytes]]) -> Iterator[Sequence[tuple[Row, bytes]]]:
    """Rows some at a time; one empty batch where there are none, because a file needs its columns all the same."""
    batch: list[tuple[Row, bytes]] = []
    is_empty = True
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch, is_empty = [], False
    if batch or is_empty:
        yield batch


def encoding_of(image: bytes) -> str:
    """The ending of a stored picture's file name."""
    return "jpg" if image.startswith(b"\xff\xd8") else "png"


def file_name(key: str) -> str:
    """A key as the name of a file: no folders, no dots (webdataset cuts names there), never too long."""
    name = quote(key, safe=" +,;=@()").replace(".", "%2E").replace("~", "%7E")
    if len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 17]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, indent=None).encode()
