"""Compressed archives unpacked as a stream, within bounds: a small file cannot become a huge one.

What belongs here: decompression with a limit on output and memory. What does not: what the archive holds.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import IO, Any

MAX_RATIO = 100  # pictures hardly shrink; a bomb shrinks a thousandfold
FREE_BYTES = 256 * 2**20  # unpacked before the ratio is asked
MAX_DICTIONARY_BYTES = 128 * 2**20  # xz -9 takes 65 MiB
_CHUNK = 2**16


class ArchiveBomb(ValueError):
    """An archive unpacks to far more than it should; the message has the figures."""


class Unpacked:
    """A readable stream of the content of a gz, bz2 or xz file, or of the file itself where it is none of these.

    Raises :class:`ArchiveBomb` past ``MAX_RATIO`` times the bytes read, EOFError where the file is cut short, and what
    the decompressors raise where it is damaged.
    """

    def __init__(self, file: IO[bytes]) -> None:
        file.seek(0)
        magic = file.read(6)
        file.seek(0)
        self._file = file
        self._new = _decompressor_for(magic)
        self._decompressor: Any = self._new() if self._new else None
        self._packed = b""
        self._ready = b""
        self._num_read = self._num_unpacked = 0

    def read(self, num_bytes: int = -1) -> bytes:
        """At most ``num_bytes`` of content; fewer only at its end."""
        if self._decompressor is None:
            return self._file.read(num_bytes)
        while len(self._ready) < num_bytes:
            more = self._unpack()
            if not more:
                break
            self._ready += more
        found, self._ready = self._ready[:num_bytes], self._ready[num_bytes:]
        return found

    def _unpack(self) -> bytes:
        """The next piece of content, empty at the end."""
        while True:
            if self._decompressor.eof:  # archives may consist of several compressed streams
                self._packed = self._after_stream()
                if not self._packed:
                    return b""
                assert self._new is not None
                self._decompressor = self._new()
            elif not self._packed and getattr(self._decompressor, "needs_input", True):
                self._packed = self._next_chunk()
            packed, self._packed = self._packed, b""
            unpacked = self._decompressor.decompress(packed, _CHUNK)
            self._packed = getattr(self._decompressor, "unconsumed_tail", b"")
            if not unpacked and not packed and not self._decompressor.eof:
                raise EOFError("the compressed archive is cut short")
            self._num_unpacked += len(unpacked)
            if self._num_unpacked > FREE_BYTES + MAX_RATIO * self._num_read:
                raise ArchiveBomb(f"{self._num_read} bytes unpack to more than {self._num_unpacked}; it is a bomb")
            if unpacked:
                return unpacked

    def _after_stream(self) -> bytes:
        """What follows a stream that has ended, without the padding; empty at the end of the file."""
        rest = self._decompressor.unused_data.lstrip(b"\0")
        while not rest and (chunk := self._next_chunk()):
            rest = chunk.lstrip(b"\0")
        return rest

    def _next_chunk(self) -> bytes:
        chunk = self._file.read(_CHUNK)
        self._num_read += len(chunk)
        return chunk


def _decompressor_for(magic: bytes) -> Any:
    if magic.startswith(b"\x1f\x8b"):
        return lambda: zlib.decompressobj(wbits=31)
    if magic.startswith(b"BZh"):
        return bz2.BZ2Decompressor
    if magic.startswith(b"\xfd7zXZ\0"):
        return lambda: lzma.LZMADecompressor(memlimit=MAX_DICTIONARY_BYTES)
    return None
