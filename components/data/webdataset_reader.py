"""Rows from webdataset tars: members that share a name up to the first dot of the file name are one row.

What belongs here: walking an archive safely. Nothing in it is ever written to disk under a name that it gives, and no
link is followed. What does not: checks of what a picture or caption holds.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any

from components.contracts import SourceRow

from .sources import CAPTION_NAMES, LICENSE_NAMES, UnreadableShard, open_local_shard, text_of

IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "webp")  # of several pictures in a row the first of these is taken
TEXT_SUFFIXES = ("txt", "json", "cls")
MAX_MEMBER_BYTES = 128 * 2**20
MAX_PENDING_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class WebdatasetReader:
    """Reads each tar (plain, gz, bz2 or xz) of ``uris`` as a shard: once over its headers, then once for its rows.

    The caption is the ``.txt``, else a caption field of the ``.json``; ``caption`` names another suffix or field. The
    members of a row may lie apart. ``extra`` holds the fields of the ``.json``, and ``cls``.
    """

    uris: Sequence[str]
    caption: str | None = None

    def shards(self) -> Sequence[str]:
        """The tars, in the order given."""
        return self.uris

    def read(self, shard: int) -> Iterator[SourceRow]:
        """Rows of one tar, each once its last member has come by.

        Raises :class:`UnreadableShard` before the first row where the archive is cut, damaged or holds bytes behind
        its end.
        """
        return self._rows(shard, with_images=True)

    def extras(self, shard: int) -> Iterator[SourceRow]:
        """Like :meth:`read` without the pictures."""
        return self._rows(shard, with_images=False)

    def _rows(self, shard: int, *, with_images: bool) -> Iterator[SourceRow]:
        uri = self.uris[shard]
        with open_local_shard(uri) as file:
            num_left = Counter(member.key for _, member in _members(file))
            pending: dict[str, _Sample] = {}
            num_bytes = 0
            for tar, member in _members(file):
                sample = pending.setdefault(member.key, _Sample(member.key, uri))
                num_bytes -= sample.num_bytes
                if member.suffix in IMAGE_SUFFIXES and member.suffix in sample.parts:
                    yield SourceRow(
                        member.key, None, None, f"{uri}#{member.name}", problem=("duplicate_key", "a second member")
                    )
                elif member.suffix not in sample.parts:
                    sample.add(member, self._content(tar, member, with_images=with_images))
                num_bytes += sample.num_bytes
                num_left[member.key] -= 1
                if not num_left[member.key]:
                    num_bytes -= sample.num_bytes
                    yield pending.pop(member.key).row(self.caption, with_images=with_images)
                if num_bytes > MAX_PENDING_BYTES:
                    raise UnreadableShard(uri, "members of its rows lie too far apart; sort the archive by name")

    def _content(self, tar: tarfile.TarFile, member: _Member, *, with_images: bool) -> bytes | None:
        """The member's bytes, empty where they are not wanted, None where they must not or cannot be read."""
        if member.problem is not None:
            return None
        wanted = member.suffix in (*TEXT_SUFFIXES, self.caption) or (with_images and member.suffix in IMAGE_SUFFIXES)
        stream = tar.extractfile(member.info) if wanted else None
        return stream.read() if stream else b""


@dataclass(frozen=True, slots=True)
class _Member:
    """A file of the archive: its row's key, its suffix, and why its content must not be read."""

    info: tarfile.TarInfo
    name: str
    key: str
    suffix: str
    problem: tuple[str, str] | None


@dataclass(slots=True)
class _Sample:
    """What has come by of one row."""

    key: str
    uri: str
    parts: dict[str, bytes] = field(default_factory=dict)
    name: str = ""
    problem: tuple[str, str] | None = None

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.parts.values()))

    def add(self, member: _Member, content: bytes | None) -> None:
        self.problem = self.problem or member.problem
        if content is not None:
            self.parts[member.suffix] = content
        if not self.name or member.suffix in IMAGE_SUFFIXES:
            self.name = member.name

    def row(self, caption_name: str | None, *, with_images: bool) -> SourceRow:
        """The finished row; the first problem found decides."""
        suffix = next((suffix for suffix in IMAGE_SUFFIXES if suffix in self.parts), None)
        fields, problem = self._fields()
        if suffix is None:
            status = f"; status {fields['status']}: {fields.get('error_message')}" if "status" in fields else ""
            problem = ("no_image", f"members {', '.join(sorted(self.parts)) or 'none'}{status}")
        try:
            caption = self._caption(caption_name, fields)
        except UnicodeDecodeError as error:
            caption, problem = None, problem or ("bad_caption", str(error))
        problem = self.problem or problem
        license_ = next((fields[name] for name in LICENSE_NAMES if fields.get(name)), None)
        return SourceRow(
            self.key,
            self.parts[suffix] if suffix and with_images and problem is None else None,
            caption,
            f"{self.uri}#{self.name}",
            str(license_) if license_ else None,
            fields,
            problem,
        )

    def _fields(self) -> tuple[dict[str, Any], tuple[str, str] | None]:
        """The fields of the ``.json`` and the ``.cls``."""
        fields: dict[str, Any] = {}
        problem = None
        if "json" in self.parts:
            try:
                loaded = json.loads(self.parts["json"])
                if not isinstance(loaded, dict):
                    raise ValueError(f"it holds a {type(loaded).__name__}, not an object")
                fields.update(loaded)
            except (ValueError, RecursionError) as error:
                problem = ("bad_metadata", f".json: {error}")
        if "cls" in self.parts:
            fields["cls"] = self.parts["cls"].decode("utf-8", "replace").strip()
        return fields, problem

    def _caption(self, name: str | None, fields: Mapping[str, Any]) -> str | None:
        if name is not None:
            return text_of(self.parts.get(name, fields.get(name)))
        if "txt" in self.parts:
            return text_of(self.parts["txt"])
        return next((text_of(fields[name]) for name in CAPTION_NAMES if name in fields), None)


class _StrictTarInfo(tarfile.TarInfo):
    """tarfile takes a damaged header in the midst of an archive, or a missing end, for its end and loses the rest."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictTarInfo:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # a block of zeros: the true end
            raise tarfile.ReadError(f"the archive is damaged or cut short ({error})") from error


def _members(file: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, _Member]]:
    """The files of an archive with a suffix, and all that is unsafe; folders and hidden files are passed over."""
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r|*", bufsize=2**15, tarinfo=_StrictTarInfo) as tar:
        while (info := tar.next()) is not None:
            name = info.name.removeprefix("./")
            stem, dot, suffix = PurePosixPath(name).name.partition(".")
            problem = _unsafe(info, name)
            if problem is None and info.size > MAX_MEMBER_BYTES:
                problem = ("too_many_bytes", f"{name} has {info.size} bytes, more than {MAX_MEMBER_BYTES}")
            if problem or (stem and dot and not info.isdir()):
                key = name[: len(name) - len(dot) - len(suffix)] if stem else name
                yield tar, _Member(info, name, key, suffix.lower(), problem)
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  # else it keeps every header of the archive
        while rest := tar.fileobj.read(2**20):
            if rest.count(0) != len(rest):
                raise tarfile.ReadError("bytes follow the archive's end; join archives with tar, not with cat")


def _unsafe(info: tarfile.TarInfo, name: str) -> tuple[str, str] | None:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return ("unsafe_member", f"{name!r} leaves the archive's folder")
    if info.isreg() or info.isdir():
        return None
    kind = "link" if info.issym() or info.islnk() else "device" if info.isdev() else f"member of type {info.type!r}"
    return ("unsafe_member", f"{name!r} is a {kind}")
