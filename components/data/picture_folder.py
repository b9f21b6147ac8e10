"""Pictures that lie as files below one folder or URI, and that a table or a listing names.

What belongs here: that nothing outside the folder is ever read, limits of size and time, fetching several at once from
remote storage. What does not: which pictures there are and what their captions say (readers).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from .sources import MAX_PICTURE_BYTES, Problem, is_local, open_storage

NUM_FETCHERS = 4  # pictures that are fetched at once from remote storage
MAX_FETCH_SECONDS = 60.0

T = TypeVar("T")


class PictureFolder:
    """Reads files below ``uri`` (any fsspec storage) and refuses every other."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.fs, root = open_storage(uri)
        self.root = str(root).rstrip("/")
        self.is_local = is_local(self.fs)
        self._real_root = str(Path(self.root).resolve()) if self.is_local else self.root

    def read(self, name: str, max_bytes: int = MAX_PICTURE_BYTES) -> bytes | Problem:
        """The file's bytes, or why they cannot be had; ``name`` is relative to the folder or a full URI below it.

        Reasons: ``unsafe_path``, ``no_image`` (there is none, or the storage does not give it), ``too_many_bytes``.
        """
        path = self._path_of(name)
        if path is None:
            return "unsafe_path", f"{name!r} does not lie below {self.uri}"
        try:
            if self.is_local and not Path(path).is_file():  # a pipe would be waited for, a device read for ever
                return "no_image", f"{name!r} is not a file below {self.uri}"
            data: Any = self.fs.cat_file(path, start=0, end=max_bytes + 1)
        except Exception as error:  # storage drivers raise many things; each costs this picture alone
            return "no_image", f"{name!r} below {self.uri}: {type(error).__name__}: {error}"
        if len(data) > max_bytes:
            return "too_many_bytes", f"{name!r} has more than {max_bytes} bytes"
        return data

    def read_all(self, wanted: Iterable[tuple[T, str | None]]) -> Iterator[tuple[T, bytes | Problem | None]]:
        """Each item with the bytes of the file that it names (None where it names none), in the given order.

        Remote files are fetched ``NUM_FETCHERS`` at a time. One that takes longer than ``MAX_FETCH_SECONDS`` is
        ``too_slow``.
        """
        if self.is_local:
            for item, name in wanted:
                yield item, None if name is None else self.read(name)
            return
        pool = ThreadPoolExecutor(NUM_FETCHERS, thread_name_prefix="fetch")
        waiting: deque[tuple[T, str | None, Future[bytes | Problem] | None]] = deque()
        try:
            for item, name in wanted:
                waiting.append((item, name, None if name is None else pool.submit(self.read, name)))
                if len(waiting) > NUM_FETCHERS:
                    yield _fetched(*waiting.popleft())
            while waiting:
                yield _fetched(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _path_of(self, name: str) -> str | None:
        """The path in the storage, or None where it leads out of the folder."""
        if "\0" in name:
            return None
        if "://" in name or PurePosixPath(name).is_absolute():
            protocols = [self.fs.protocol] if isinstance(self.fs.protocol, str) else self.fs.protocol
            if name.split("://", 1)[0] not in protocols if "://" in name else not self.is_local:
                return None
            path = str(self.fs._strip_protocol(name))
        else:
            path = f"{self.root}/{name}"
        if ".." in PurePosixPath(path).parts or not path.startswith(f"{self.root}/"):
            return None
        if self.is_local and not Path(path).resolve().is_relative_to(self._real_root):
            return None  # a link that leads out
        return path


def _fetched(item: T, name: str | None, future: Future[bytes | Problem] | None) -> tuple[T, bytes | Problem | None]:
    if future is None:
        return item, None
    try:
        return item, future.result(MAX_FETCH_SECONDS)
    except TookTooLong:
        return item, ("too_slow", f"{name!r} was not there after {MAX_FETCH_SECONDS:g} s")
