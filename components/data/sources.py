"""Where rows come from: URIs and globs made into files, and files opened so that every failure has a name.

What belongs here: what readers of different formats share. What does not: any one format.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from .storage import is_local, open_storage

CAPTION_NAMES = ("caption", "text", "txt", "alt_text", "prompt")  # found without being told, the first one wins
LICENSE_NAMES = ("license", "licence")


class UnreadableShard(RuntimeError):
    """A whole shard cannot be trusted: ``uri`` names it and ``cause`` says why. Nothing of it may be kept."""

    def __init__(self, uri: str, cause: str) -> None:
        super().__init__(uri, cause)
        self.uri = uri
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.uri} cannot be read: {self.cause}. Mend or remove it, then materialize its partition again."


def resolve_uri(uri: str) -> list[str]:
    """The files that a URI or glob names, sorted; local ones as absolute paths.

    Raises FileNotFoundError saying what matched nothing, and whatever the storage raises where it cannot be reached.
    """
    fs, path = open_storage(uri)
    fs.invalidate_cache()  # listings are cached per process and miss files that came later
    if any(character in path for character in "*?["):
        found = sorted(fs.glob(path))
        if not found:
            raise FileNotFoundError("the glob matches no file")
    elif fs.isdir(path):
        raise FileNotFoundError("it is a folder; name its files with a glob such as /*.parquet")
    elif fs.exists(path):
        found = [path]
    else:
        raise FileNotFoundError("there is no such file")
    return [str(name) if is_local(fs) else fs.unstrip_protocol(name) for name in found]


@contextmanager
def open_shard(uri: str) -> Iterator[IO[bytes]]:
    """The shard's bytes, seekable; whatever fails inside the block becomes :class:`UnreadableShard`."""
    try:
        fs, path = open_storage(uri)
        with fs.open(path, "rb") as file:
            yield file
    except UnreadableShard:
        raise
    except Exception as error:  # storage drivers and decoders raise many things; each means that the shard is lost
        raise UnreadableShard(uri, f"{type(error).__name__}: {error}") from error


@contextmanager
def open_local_shard(uri: str) -> Iterator[IO[bytes]]:
    """Like :func:`open_shard`, with a remote file fetched once, whole, into an anonymous temporary file."""
    with open_shard(uri) as file:
        if is_local(open_storage(uri)[0]):
            yield file
            return
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(file, copy, 2**20)
            copy.seek(0)
            yield copy


def text_of(value: Any) -> str | None:
    """A cell as text: bytes are decoded, of several texts the first is taken, numbers are written out.

    Raises UnicodeDecodeError for bytes that are not UTF-8.
    """
    if isinstance(value, list | tuple):
        value = next((each for each in value if each is not None), None)
    if value is None or isinstance(value, str):
        return value
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
