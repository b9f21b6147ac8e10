"""Rows from a folder of pictures: with sidecars, with Hugging Face's ``metadata`` files, or with COCO's captions.

What belongs here: listing the folder, joining pictures with their captions, cutting rows into shards. What does not:
the formats of caption files (``caption_files``) and reading below a folder safely (``picture_folder``).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import IO, Any

from components.contracts import SourceRow

from .caption_files import CAPTION_FILES, CaptionEntry, entries_of
from .lake import digest_of
from .picture_folder import PictureFolder
from .sidecars import TEXT_SUFFIXES, fields_of, row_of_parts
from .sources import (
    CAPTION_NAMES,
    IMAGE_SUFFIXES,
    MAX_TEXT_BYTES,
    CaptionRule,
    Problem,
    caption_of,
    license_of,
    open_shard,
    open_storage,
)


@dataclass(slots=True)
class FolderRow:
    """What is known of a row before its files are read. Paths are relative to the folder."""

    key: str
    picture: str | None = None
    sidecars: tuple[str, ...] = ()
    place: int = -1  # of the entry in the spool, -1 where no caption file names the picture
    problem: Problem | None = None
    stamp: int = 0  # changes when one of its files does


@dataclass(frozen=True, slots=True)
class FolderReader:
    """Pictures below ``uri`` as rows (``contracts.Reader``). The key is the path without its suffix.

    A caption file, where there is one, decides the captions; else ``.txt`` and ``.json`` beside the pictures do. A
    picture that nothing describes has an empty caption; a description without its picture is a ``no_image``. Rows are
    cut into 2**n shards by the hash of their keys, so that a picture that is added changes one shard (until there are
    twice as many); in a shard they are in key order. The listing is held in memory, a few hundred bytes a picture.
    """

    uri: str
    caption: str | None
    captions: CaptionRule
    shards_of_rows: tuple[tuple[FolderRow, ...], ...]
    spool: IO[bytes] = field(repr=False)

    def shards(self) -> Sequence[str]:
        """The folder with each shard's number behind it."""
        return [f"{self.uri}#{shard}" for shard in range(len(self.shards_of_rows))]

    def state(self, shard: int) -> str:
        """Digest of the shard's keys and of its files' sizes and times (or etags)."""
        rows = self.shards_of_rows[shard]
        told = [[row.key.encode("utf-8", "backslashreplace").decode(), row.stamp] for row in rows]
        return digest_of([self.uri, len(self.shards_of_rows), told])

    def read(self, shard: int) -> Iterator[SourceRow]:
        """Rows of one shard; a file that cannot be read costs its row."""
        folder = PictureFolder(self.uri)
        wanted = (
            (row, row.picture if row.problem is None and row.picture else None) for row in self.shards_of_rows[shard]
        )
        for row, image in folder.read_all(wanted):
            yield self._row(folder, row, image)

    def extras(self, shard: int) -> Iterator[SourceRow]:
        """Like :meth:`read` without opening the pictures."""
        folder = PictureFolder(self.uri)
        for row in self.shards_of_rows[shard]:
            yield replace(self._row(folder, row, b"unread"), image=None)

    def _row(self, folder: PictureFolder, row: FolderRow, image: bytes | Problem | None) -> SourceRow:
        source = f"{self.uri}#{row.picture or row.key}"
        problem = row.problem
        if image is not None and not isinstance(image, bytes):
            problem = problem or image
        parts: dict[str, bytes] = {}
        for sidecar in row.sidecars:
            content = folder.read(sidecar, MAX_TEXT_BYTES)
            if isinstance(content, bytes):
                parts[sidecar.rsplit(".", 1)[1].lower()] = content
            else:
                problem = problem or ("bad_metadata", content[1])
        if isinstance(image, bytes) and row.picture:
            parts[row.picture.rsplit(".", 1)[1].lower()] = image
        if row.place < 0:
            return row_of_parts(row.key, source, parts, self.caption, self.captions, problem)
        return self._described_row(row, source, parts, problem)

    def _described_row(
        self, row: FolderRow, source: str, parts: dict[str, bytes], problem: Problem | None
    ) -> SourceRow:
        """The row of a picture that a caption file names; a ``.json`` beside it may add fields."""
        self.spool.seek(row.place)
        fields: dict[str, Any] = fields_of({"json": parts["json"]})[0] if "json" in parts else {}
        fields |= json.loads(self.spool.readline())
        names = [self.caption] if self.caption else CAPTION_NAMES
        caption = caption_of(next((fields[name] for name in names if fields.get(name)), None), self.captions, row.key)
        image = next((parts[suffix] for suffix in IMAGE_SUFFIXES if suffix in parts), None)
        return SourceRow(row.key, None if problem else image, caption, source, license_of(fields), fields, problem)


def open_folder(
    uri: str, rows_per_shard: int, captions_file: str | None, caption: str | None, rule: CaptionRule
) -> FolderReader:
    """The reader of a folder (any fsspec URI), listed now.

    ``captions_file``: a path relative to the folder or a URI of its own; None: ``metadata.jsonl``, ``metadata.csv`` or
    ``captions.json`` wherever they lie in the folder, each for the pictures below it. Raises FileNotFoundError where
    there is no such folder or no picture, :class:`components.data.sources.UnreadableShard` where a caption file is no
    good.
    """
    rows, found = _listed(uri)
    if captions_file or found:  # texts that stand alone are then no captions
        rows = {key: row for key, row in rows.items() if row.picture or row.problem}
    spool = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the reader is
    for name in [captions_file] if captions_file else found:
        below = "" if captions_file else name.rpartition("/")[0]
        _describe(rows, _beside(uri, name), below, spool)
    for row in rows.values():
        if row.picture is None and row.problem is None:
            beside = ", ".join(row.sidecars) or "a caption file"
            row.problem = ("no_image", f"{beside} describes it, and there is no such picture")
    if not rows:
        raise FileNotFoundError(f"it holds no picture ({', '.join(IMAGE_SUFFIXES)})")
    num_shards = 1
    while num_shards * rows_per_shard < len(rows):
        num_shards *= 2
    shards: list[list[FolderRow]] = [[] for _ in range(num_shards)]
    for key in sorted(rows):
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        shards[int.from_bytes(digest[:8]) % num_shards].append(rows[key])
    return FolderReader(uri, caption, rule, tuple(map(tuple, shards)), spool)


def _listed(uri: str) -> tuple[dict[str, FolderRow], list[str]]:
    """Rows by key as the folder's files make them, and the caption files among these. Hidden ones are passed over."""
    fs, root = open_storage(uri)
    root = str(root).rstrip("/")
    fs.invalidate_cache()
    if not fs.isdir(root):
        raise FileNotFoundError("there is no such folder")
    rows: dict[str, FolderRow] = {}
    caption_files: list[str] = []
    for place, folders, files in fs.walk(root, detail=True):
        below = str(place)[len(root) :].strip("/")
        for name in [name for name in folders if name.startswith(".") or folders[name].get("islink")]:
            files[name] = folders.pop(name)  # not walked: a link may lead out of the folder, or round in a circle
        for name in sorted(files):
            path = f"{below}/{name}".lstrip("/")
            stem, dot, suffix = name.rpartition(".")
            if name in CAPTION_FILES:
                caption_files.append(path)
            elif stem and dot and not name.startswith(".") and suffix.lower() in (*IMAGE_SUFFIXES, *TEXT_SUFFIXES):
                _add_file(rows, path, suffix.lower(), files[name])
            elif files[name].get("islink"):
                rows[path] = FolderRow(path, problem=("unsafe_path", f"{path!r} is a link, which is not followed"))
    return rows, sorted(caption_files)


def _add_file(rows: dict[str, FolderRow], path: str, suffix: str, info: dict[str, Any]) -> None:
    key = path[: -len(suffix) - 1]
    row = rows.setdefault(key, FolderRow(key))
    row.stamp ^= _stamp(path, info)
    if suffix in TEXT_SUFFIXES:
        row.sidecars += (path,)
    elif row.picture is None:
        row.picture = path
    else:
        second = FolderRow(path, path, stamp=_stamp(path, info))
        second.problem = ("duplicate_key", f"{row.picture} has the same name")
        rows[path] = second


def _stamp(path: str, info: dict[str, Any]) -> int:
    """A number that changes with a file: its size, and the time or etag that the storage has."""
    known = [path, *(str(info.get(name)) for name in ("size", "mtime", "ETag", "etag", "LastModified", "created"))]
    return int.from_bytes(hashlib.blake2b("\0".join(known).encode("utf-8", "surrogateescape"), digest_size=6).digest())


def _beside(uri: str, name: str) -> str:
    return name if "://" in name or PurePosixPath(name).is_absolute() else f"{uri.rstrip('/')}/{name}"


def _describe(rows: dict[str, FolderRow], file: str, below: str, spool: IO[bytes]) -> None:
    """Join the entries of a caption file with the pictures; an entry without a picture becomes a row of its own."""
    name = PurePosixPath(file).name
    with open_shard(file) as opened:  # every caption of the folder depends on it
        for entry in entries_of(name, opened):
            _describe_one(rows, entry, f"{below}/{name}".lstrip("/"), below, spool)


def _describe_one(rows: dict[str, FolderRow], entry: CaptionEntry, file: str, below: str, spool: IO[bytes]) -> None:
    if entry.file_name is None:
        key = f"{file}, {entry.place}"
        rows[key] = FolderRow(key, problem=entry.problem, stamp=_stamp(key, {}))
        return
    path = f"{below}/{entry.file_name}".lstrip("/")
    suffix = PurePosixPath(path).suffix
    key = path.removesuffix(suffix)
    row = rows.get(key)
    if row is None or row.picture != path:
        problem = ("no_image", f"{file}, {entry.place} names {entry.file_name!r}, which is not in the folder")
        row = rows.setdefault(path, FolderRow(path, problem=problem))
    if row.place >= 0:
        again = f"{file}, {entry.place}"
        rows[again] = FolderRow(again, problem=("duplicate_key", f"{entry.file_name!r} is described twice"))
        return
    row.place = spool.seek(0, 2)
    spool.write(json.dumps(entry.fields).encode() + b"\n")
    row.stamp ^= int.from_bytes(hashlib.blake2b(json.dumps(entry.fields).encode(), digest_size=6).digest())
