"""Rows from webdataset tars: members that share a name up to the first dot of the file name are one row.

What belongs here: walking an archive safely. Nothing in it is ever written to disk under a name that it gives, and no
link is followed. What does not: what a row's parts mean together (``sidecars``), checks of what a picture or caption
holds.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO

from components.contracts import SourceRow

from .sidecars import row_of_parts, suffix_of_text
from .sources import (
    IMAGE_SUFFIXES,
    MAX_PICTURE_BYTES,
    MAX_SHARD_BYTES,
    MAX_TEXT_BYTES,
    CaptionRule,
    Problem,
    UnreadableShard,
    open_local_shard,
    state_of,
)
from .unpacking import Unpacked

MAX_PENDING_BYTES = 128 * 2**20
MAX_MEMBERS = 2**20
MAX_NAME_BYTES = 2**16  # of the extra headers that hold long names
_LONG_NAMES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@dataclass(frozen=True, slots=True)
class WebdatasetReader:
    """Reads each tar (plain, gz, bz2 or xz) of ``uris`` as a shard: once over its headers, then once for its rows.

    The caption is the ``.txt`` (of several, ``.0.txt``, ``.1.txt``, the one that ``captions`` picks), else a caption
    field of the ``.json``; ``caption`` names another suffix or field. A row without any has an empty caption. The
    members of a row may lie apart. ``extra`` holds the fields of the ``.json``, and ``cls``.
    """

    uris: Sequence[str]
    caption: str | None = None
    captions: CaptionRule = "first"

    def shards(self) -> Sequence[str]:
        """The tars, in the order given."""
        return self.uris

    def state(self, shard: int) -> str:
        """Digest of the tar's size and modification time or etag."""
        return state_of(self.uris[shard])

    def read(self, shard: int) -> Iterator[SourceRow]:
        """Rows of one tar, each once its last member has come by.

        Raises :class:`UnreadableShard` before the first row where the archive is cut, damaged, holds bytes behind its
        end or unpacks to far more than it should.
        """
        return self._rows(shard, with_images=True)

    def extras(self, shard: int) -> Iterator[SourceRow]:
        """Like :meth:`read` without the pictures."""
        return self._rows(shard, with_images=False)

    def _rows(self, shard: int, *, with_images: bool) -> Iterator[SourceRow]:
        uri = self.uris[shard]
        with open_local_shard(uri) as file:
            num_left = _members_by_row(file, uri)
            pending: dict[str, _Sample] = {}
            num_bytes = 0
            for tar, member in _members(file):
                sample = pending.setdefault(member.key, _Sample(member.key, uri))
                num_bytes -= sample.num_bytes
                if member.suffix in sample.parts and member.suffix in IMAGE_SUFFIXES:
                    yield SourceRow(
                        member.key, None, None, f"{uri}#{member.name}", problem=("duplicate_key", "a second member")
                    )
                elif member.suffix not in sample.parts:
                    sample.add(member, self._content(tar, member, with_images=with_images))
                num_bytes += sample.num_bytes
                num_left[_digest(member.key)] -= 1
                if not num_left[_digest(member.key)]:
                    num_bytes -= sample.num_bytes
                    yield self._finished(pending.pop(member.key), with_images=with_images)
                if num_bytes > MAX_PENDING_BYTES:
                    raise UnreadableShard(uri, "members of its rows lie too far apart; sort the archive by name")
            for sample in pending.values():
                yield self._finished(sample, with_images=with_images)

    def _finished(self, sample: _Sample, *, with_images: bool) -> SourceRow:
        source = f"{sample.uri}#{sample.name}"
        row = row_of_parts(sample.key, source, sample.parts, self.caption, self.captions, sample.problem)
        if row.problem is None and with_images:
            return row
        return SourceRow(row.key, None, row.caption, row.source, row.license, row.extra, row.problem)

    def _content(self, tar: tarfile.TarFile, member: _Member, *, with_images: bool) -> bytes | None:
        """The member's bytes, empty where they are not wanted, None where they must not or cannot be read."""
        if member.problem is not None:
            return None
        wanted = member.is_text(self.caption) or (with_images and member.suffix in IMAGE_SUFFIXES)
        stream = tar.extractfile(member.info) if wanted else None
        return stream.read(MAX_PICTURE_BYTES) if stream else b""


@dataclass(frozen=True, slots=True)
class _Member:
    """A file of the archive: its row's key, its suffix, and why its content must not be read."""

    info: tarfile.TarInfo
    name: str
    key: str
    suffix: str
    problem: Problem | None

    def is_text(self, caption: str | None) -> bool:
        """Whether the member is one that is read as text."""
        return suffix_of_text(self.suffix) or self.suffix == caption


@dataclass(slots=True)
class _Sample:
    """What has come by of one row."""

    key: str
    uri: str
    parts: dict[str, bytes] = field(default_factory=dict)
    name: str = ""
    problem: Problem | None = None

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.parts.values())) + 256  # a row of many empty members takes memory too

    def add(self, member: _Member, content: bytes | None) -> None:
        self.problem = self.problem or member.problem
        if content is not None:
            self.parts[member.suffix] = content
        if not self.name or member.suffix in IMAGE_SUFFIXES:
            self.name = member.name


class _StrictTarInfo(tarfile.TarInfo):
    """tarfile takes a damaged header in the midst of an archive, or a missing end, for its end and loses the rest."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictTarInfo:
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # a block of zeros: the true end
            raise tarfile.ReadError(f"the archive is damaged or cut short ({error})") from error
        limit = MAX_NAME_BYTES if info.type in _LONG_NAMES else MAX_SHARD_BYTES
        if not 0 <= info.size <= limit:  # names are read into memory whole, and tarfile seeks behind an end for ever
            raise tarfile.ReadError(f"a header claims {info.size} bytes")
        return info


def _members_by_row(file: IO[bytes], uri: str) -> Counter[int]:
    """How many members each row has, by the digest of its key: names may be long, and there may be many."""
    num_left: Counter[int] = Counter()
    for number, (_, member) in enumerate(_members(file)):
        if number >= MAX_MEMBERS:
            raise UnreadableShard(uri, f"it has more than {MAX_MEMBERS} members; cut it into shards")
        num_left[_digest(member.key)] += 1
    return num_left


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest())


def _members(file: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, _Member]]:
    """The files of an archive with a suffix, and all that is unsafe; folders and hidden files are passed over."""
    unpacked = Unpacked(file)
    with tarfile.open(fileobj=unpacked, mode="r|", bufsize=2**15, tarinfo=_StrictTarInfo) as tar:  # pyright: ignore[reportCallIssue, reportArgumentType]  # read() is all that a stream needs
        while (info := tar.next()) is not None:
            name = info.name.removeprefix("./")
            stem, dot, suffix = PurePosixPath(name).name.partition(".")
            if stem and dot and not info.isdir():
                key = name[: len(name) - len(dot) - len(suffix)]
                yield tar, _Member(info, name, key, suffix.lower(), _problem_of(info, name, suffix.lower()))
            elif problem := _unsafe(info, name):
                yield tar, _Member(info, name, name, suffix.lower(), problem)
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  # else it keeps every header of the archive
        while rest := tar.fileobj.read(2**20):
            if rest.count(0) != len(rest):
                raise tarfile.ReadError("bytes follow the archive's end; join archives with tar, not with cat")


def _problem_of(info: tarfile.TarInfo, name: str, suffix: str) -> Problem | None:
    if problem := _unsafe(info, name):
        return problem
    limit = MAX_TEXT_BYTES if suffix_of_text(suffix) else MAX_PICTURE_BYTES if suffix in IMAGE_SUFFIXES else None
    too_large = limit is not None and info.size > limit
    return ("too_many_bytes", f"{name} has {info.size} bytes, more than {limit}") if too_large else None


def _unsafe(info: tarfile.TarInfo, name: str) -> Problem | None:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return "unsafe_member", f"{name!r} leaves the archive's folder"
    if info.isdir() or (info.isreg() and not info.issparse()):
        return None
    kind = "link" if info.issym() or info.islnk() else "device" if info.isdev() else f"member of type {info.type!r}"
    return "unsafe_member", f"{name!r} is a {kind}"
