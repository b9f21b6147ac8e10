"""Where rows come from: URIs and globs made into files, and files opened so that every failure has a name.

What belongs here: what readers of different formats share, their size limits among it. What does not: any one format.
"""

from __future__ import annotations

import hashlib
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, Literal, TypeVar

from components.addresses import without_credentials

from .lake import digest_of
from .storage import is_local, named_failures, open_storage

CAPTION_NAMES = ("caption", "text", "txt", "alt_text", "prompt", "captions")  # found untold, the first one wins
LICENSE_NAMES = ("license", "licence")
KEY_NAMES = ("key", "__key__", "id", "uid")
IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff")  # of several in a row, the first of these
MAX_PICTURE_BYTES = 64 * 2**20  # of one encoded picture, before the recipe's own limit is asked
MAX_TEXT_BYTES = 2**20  # of one caption, sidecar, line or cell
MAX_SHARD_BYTES = 64 * 2**30
READ_AHEAD = 4  # rows

Problem = tuple[str, str]  # reason code, detail
CaptionRule = Literal["first", "longest", "drawn"]
T = TypeVar("T")


class UnreadableShard(RuntimeError):
    """A whole shard cannot be trusted: ``uri`` names it and ``cause`` says why. Nothing of it may be kept."""

    def __init__(self, uri: str, cause: str) -> None:
        self.uri, self.cause = without_credentials(uri), without_credentials(cause)
        super().__init__(self.uri, self.cause)

    def __str__(self) -> str:
        return f"{self.uri} cannot be read: {self.cause}. Mend or remove it, then materialize its partition again."


def resolve_uri(uri: str) -> list[str]:
    """The files that a URI or glob names, sorted; local ones as absolute paths.

    Raises FileNotFoundError saying what matched nothing, and whatever the storage raises where it cannot be reached.
    """
    fs, path = open_storage(uri)
    found = resolve_places(uri)
    folders = [name for name in found if fs.isdir(name)]
    if folders and folders == [path]:
        raise FileNotFoundError("it is a folder; name its files with a glob such as /*.parquet")
    return [name for name in found if name not in folders]


def resolve_places(uri: str) -> list[str]:
    """Like :func:`resolve_uri`, with folders as well."""
    fs, path = open_storage(uri)
    fs.invalidate_cache()  # listings are cached per process and miss files that came later
    if any(character in path for character in "*?["):
        found = sorted(map(str, fs.glob(path)))
        if not found:
            raise FileNotFoundError("the glob matches no file")
    elif fs.exists(path):
        found = [str(path)]
    else:
        raise FileNotFoundError("there is no such file")
    return [str(name) if is_local(fs) else fs.unstrip_protocol(name) for name in found]


def state_of(uri: str) -> str:
    """What tells that a file has changed: its size and modification time or etag."""
    with named_failures(uri, "read"):
        filesystem, path = open_storage(uri)
        filesystem.invalidate_cache()
        return digest_of([uri, str(filesystem.ukey(path))])


@contextmanager
def open_shard(uri: str) -> Iterator[IO[bytes]]:
    """The shard's bytes, seekable; whatever fails inside the block becomes :class:`UnreadableShard`."""
    try:
        fs, path = open_storage(uri)
        num_bytes = fs.size(path)
        if num_bytes and num_bytes > MAX_SHARD_BYTES:
            raise UnreadableShard(uri, f"it has {num_bytes} bytes, more than {MAX_SHARD_BYTES}; cut it into shards")
        with fs.open(path, "rb") as file:
            yield file
    except UnreadableShard:
        raise
    except Exception as error:  # storage drivers and decoders raise many things; each means that the shard is lost
        raise UnreadableShard(uri, f"{type(error).__name__}: {error}") from None  # its own words may hold a password


@contextmanager
def open_local_shard(uri: str) -> Iterator[IO[bytes]]:
    """Like :func:`open_shard`, with a remote file fetched once, whole, into a temporary file; ``name`` is its path."""
    with open_shard(uri) as file:
        if is_local(open_storage(uri)[0]):
            yield file
            return
        with tempfile.NamedTemporaryFile() as copy:
            shutil.copyfileobj(file, copy, 2**20)
            copy.seek(0)
            yield copy


def within_time(rows: Callable[[], Iterator[T]], uri: str, max_seconds: float) -> Iterator[T]:
    """The rows of a shard, read a few ahead by a thread of their own.

    Raises :class:`UnreadableShard` where they take longer than ``max_seconds`` in all: a storage that never answers
    then costs its shard and not the run. Its thread is left behind, asleep.
    """
    ahead: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(READ_AHEAD)
    is_over = threading.Event()

    def fill() -> None:
        error: BaseException | None = None
        try:
            for row in rows():
                _put_unless(is_over, ahead, (row, None))
                if is_over.is_set():
                    return
        except BaseException as caught:  # handed to the reading side, which raises it
            error = caught
        _put_unless(is_over, ahead, (None, error or StopIteration()))

    deadline = time.monotonic() + max_seconds
    threading.Thread(target=fill, name=f"read {uri}", daemon=True).start()
    try:
        while True:
            try:
                row, error = ahead.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise UnreadableShard(uri, f"it took more than max_shard_seconds {max_seconds:g}") from None
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield row  # pyright: ignore[reportReturnType]  # None only beside an error
    finally:
        is_over.set()


def _put_unless(is_over: threading.Event, ahead: queue.Queue, item: Any) -> None:
    while not is_over.is_set():
        with suppress(queue.Full):
            ahead.put(item, timeout=0.2)
            return


def text_of(value: Any) -> str | None:
    """A cell as text: bytes are decoded, numbers are written out.

    Raises UnicodeDecodeError for bytes that are not UTF-8.
    """
    if value is None or isinstance(value, str):
        return value
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def caption_of(value: Any, rule: CaptionRule, key: str) -> str | None:
    """The caption of a cell, field or set of sidecars; where it holds several, the one that the rule picks.

    Nulls and blank texts are passed over. ``first`` takes the first one that is left, ``longest`` the longest (the
    first of equals), ``drawn`` one that the key's hash picks: each with equal chance, and always the same one.
    """
    if not isinstance(value, list | tuple):
        return text_of(value)
    texts = [text for text in map(text_of, value) if text and not text.isspace()]
    if not texts:
        return None
    if rule == "longest":
        return max(texts, key=len)
    draw = int.from_bytes(hashlib.sha256(key.encode("utf-8", "backslashreplace")).digest()[8:16])
    return texts[draw % len(texts) if rule == "drawn" else 0]


def license_of(fields: Mapping[str, Any]) -> str | None:
    """The licence that a row's fields name, or None."""
    found = next((fields[name] for name in LICENSE_NAMES if fields.get(name)), None)
    return str(found) if found else None


def first_named(usual: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of the usual names that is among ``names``, whatever its case."""
    by_lower_case = {name.lower(): name for name in reversed(names)}
    return next((by_lower_case[name] for name in usual if name in by_lower_case), None)
