"""Files on any storage that fsspec reaches, whole or absent: a local disk, S3, and others.

What belongs here: opening a storage with time limits and retries, writing and listing files, and failures that name the
file and what to do. What does not: what the files mean (``components.data.lake``) and formats (readers).

A request that fails for the moment (no connection, a reset, 5xx, a truncated answer, silence) is sent again with
growing pauses, ``AWS_MAX_ATTEMPTS`` times (5). ``ATELIER_STORAGE_TIMEOUT`` is how many seconds of silence are waited
for (30); an answer that is slow but goes on is waited for.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from components.addresses import has_credentials, without_credentials

PARTIAL = ".partial"  # the end of a hidden file or folder's name while it is being written
PARTIAL_NAME = r"\.[^/]+\.[0-9a-f]{12}\.partial"  # a regular expression for the whole of such a name
PART_BYTES = 16 * 2**20  # of an upload to S3; files of two parts and more are sent in parts, and appear with the last
MAX_PARTS = 10_000  # S3 takes no more
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, somebody's share of it, or what a process may write
PASSES_OF_S3FS = 4  # s3fs reads a body again when it breaks off; each pass has all of botocore's attempts


class StorageError(RuntimeError):
    """A file cannot be read, written or found; the message names it, the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file's size in bytes and when it was last written (seconds since 1970; None where the storage does not say)."""

    num_bytes: int
    modified: float | None


def open_storage(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a URI, with our limits where it is S3, and the path on it."""
    if not uri.startswith(("s3://", "s3a://")):
        return url_to_fs(uri)
    seconds = float(os.environ.get("ATELIER_STORAGE_TIMEOUT") or 30)
    attempts = int(os.environ.get("AWS_MAX_ATTEMPTS") or 5)
    config = {
        "connect_timeout": seconds,
        "read_timeout": seconds,
        "retries": {"mode": os.environ.get("AWS_RETRY_MODE") or "standard", "total_max_attempts": attempts},
    }
    fs, path = url_to_fs(uri, config_kwargs=config, use_listings_cache=False)  # cached listings miss new objects
    fs.retries = PASSES_OF_S3FS
    return fs, path


def is_local(fs: Any) -> bool:
    """Whether an fsspec file system is this machine's disk."""
    return isinstance(fs, LocalFileSystem)


@contextmanager
def open_file(uri: str) -> Iterator[IO[bytes]]:
    """A file's bytes, seekable; :class:`StorageError` naming it where that or anything in the block fails."""
    with named_failures(uri, "read"):
        fs, path = open_storage(uri)
        with fs.open(path, "rb") as file:
            yield file


@contextmanager
def named_failures(uri: str, what: str, kinds: type[Exception] = Exception) -> Iterator[None]:
    """Turn whatever fails in the block into a :class:`StorageError` that says that ``uri`` cannot be ``what``.

    Storage drivers and decoders raise many things, so by default every exception counts, and a full disk always does. A
    file that is missing where it should be read stays a FileNotFoundError: what it means, the caller knows.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        if not isinstance(error, kinds) and not is_full(error):
            raise
        if what == "read" and isinstance(error, FileNotFoundError):
            if not has_credentials(str(error)):
                raise
            raise FileNotFoundError(without_credentials(str(error))) from None
        cause = ": ".join(filter(None, [type(error).__name__, str(error).rstrip(".")]))
        said = without_credentials(f"{uri} cannot be {what}: {cause}. {_remedy(uri, error)}")
        raise StorageError(said) from None  # the driver's own words may hold a password


def is_full(error: BaseException | None) -> bool:
    """Whether something failed, at first, because a disk is full; some libraries tell it in words only."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in FULL) or os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _remedy(uri: str, error: Exception) -> str:
    if is_full(error) and "://" not in uri:
        folder = next(path for path in (Path(uri), *Path(uri).parents) if path.is_dir())
        disk = shutil.disk_usage(folder)
        return (
            f"The disk of {folder} has {disk.free / 2**20:.1f} of {disk.total / 2**20:.0f} MiB free. Make room there "
            "(`atelier gc --delete` removes what no record names, and the scratch folder may be emptied), or move "
            "ATELIER_HOME, ATELIER_LAKE or TMPDIR to a larger one, then run the same command again: what is whole is "
            "kept"
        )
    if "://" in uri:
        return (
            "Requests were repeated where that could help; check the connection, AWS_ENDPOINT_URL and the credentials, "
            "then run the same command again: what is whole is kept"
        )
    return "Check its permissions and the free space, then run the same command again: what is whole is kept"


class Storage:
    """Reads and writes files below one URI; a file is there in whole or not at all."""

    def __init__(self, uri: str) -> None:
        self.fs, root = open_storage(uri)
        self.root = str(root).rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine's disk."""
        return is_local(self.fs)

    def uri(self, path: str = "") -> str:
        """The full URI of a path; on a local disk the path alone."""
        place = self._place(path)
        return place if self.is_local else self.fs.unstrip_protocol(place)

    def _place(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    # ------------------------------------------------------------------------------------------------------- write
    def write_bytes(self, path: str, data: bytes) -> None:
        """Put a whole file at ``path``: readers see the old one or the new one, never a part."""
        if self.is_local:
            with self.create(path) as file:
                file.write(data)
            return
        with named_failures(self.uri(path), "written"):
            self.fs.pipe_file(self._place(path), data, **self._parts(len(data)))

    @contextmanager
    def create(self, path: str) -> Iterator[IO[bytes]]:
        """A file to be filled in the block; it appears at ``path`` once the block has ended without an error.

        Until then its bytes lie in a hidden file beside it (on a remote storage: in this machine's temporary folder).
        """
        if not self.is_local:
            with tempfile.NamedTemporaryFile(prefix="atelier-") as file:
                yield file
                file.flush()
                self._put(Path(file.name), path)
            return
        target = Path(self._place(path))
        partial = partial_path(target)
        try:
            with named_failures(str(target), "written", OSError):
                target.parent.mkdir(parents=True, exist_ok=True)
                with partial.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())  # a name must not outlive a power cut that its bytes do not
                partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def put_file(self, path: str, file: Path) -> None:
        """Copy a local file to ``path``, where it appears whole."""
        if self.is_local:
            with self.create(path) as target, file.open("rb") as source:
                shutil.copyfileobj(source, target, 2**20)
            return
        with named_failures(self.uri(path), "written"):
            self._put(file, path)

    def put_folder(self, path: str, folder: Path) -> None:
        """Copy a local folder to ``path``, whole on a local disk; elsewhere file by file, each of them whole."""
        if not self.is_local:
            for file in files_below(folder):
                self._put(file, f"{path}/{file.relative_to(folder).as_posix()}")
            return
        with named_failures(self.uri(path), "written"):
            target = Path(self._place(path))
            partial = partial_path(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copytree(folder, partial, copy_function=shutil.copyfile)
                os.utime(partial)  # its age is that of the copy
                for file in files_below(partial):
                    with file.open("rb") as written:
                        os.fsync(written.fileno())
                try:
                    partial.rename(target)
                except OSError:
                    if not target.is_dir():  # else another writer was first, and its folder is as good
                        raise
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    def _put(self, file: Path, path: str) -> None:
        with named_failures(self.uri(path), "written"):
            self.fs.put_file(str(file), self._place(path), **self._parts(file.stat().st_size))

    def _parts(self, num_bytes: int) -> dict[str, int]:
        """How an upload is cut, for drivers of S3."""
        is_s3 = "s3" in self.fs.protocol
        return {"chunksize": max(PART_BYTES, -(-num_bytes // MAX_PARTS))} if is_s3 else {}

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        with named_failures(self.uri(path), "removed"), suppress(FileNotFoundError):
            self.fs.rm_file(self._place(path))

    def remove_folder(self, path: str) -> None:
        """Remove a folder: at once on a local disk, elsewhere file by file."""
        if not self.is_local:
            for file in self.files(path):
                self.remove(file)
            return
        with named_failures(self.uri(path), "removed"), suppress(FileNotFoundError):
            hidden = partial_path(Path(self._place(path)))
            Path(self._place(path)).rename(hidden)
            shutil.rmtree(hidden)

    # -------------------------------------------------------------------------------------------------------- read
    def read_bytes(self, path: str) -> bytes:
        """A whole file; FileNotFoundError where there is none."""
        return self._read(path)

    def _read(self, path: str) -> bytes:
        with named_failures(self.uri(path), "read"):
            return self.fs.cat_file(self._place(path))

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Whole files by path, on a remote storage several at a time; those that are gone are left out."""
        if self.is_local:
            found = {}
            for path in paths:
                with suppress(FileNotFoundError):
                    found[path] = self._read(path)
            return found
        by_place = {self._place(path): path for path in paths}
        with named_failures(self.uri(), "read"):
            contents = self.fs.cat(list(by_place), on_error="return") if by_place else {}
        contents = contents if isinstance(contents, dict) else dict(zip(by_place, [contents], strict=True))
        found = {}
        for place, content in contents.items():
            with named_failures(self.uri(by_place[place]), "read"), suppress(FileNotFoundError):
                if isinstance(content, Exception):
                    raise content
                found[by_place[place]] = content
        return found

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """A file's bytes, seekable; FileNotFoundError where there is none."""
        with named_failures(self.uri(path), "read"), self.fs.open(self._place(path), "rb") as file:
            yield file

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there now; a storage that does not answer raises :class:`StorageError`."""
        with named_failures(self.uri(path), "read"):
            try:
                self.fs.info(self._place(path))
            except FileNotFoundError:
                return False
        return True

    def folders(self, path: str) -> list[str]:
        """Names of the folders in a folder, sorted; hidden ones are left out."""
        with named_failures(self.uri(path), "listed"):
            try:
                if self.is_local:
                    names = [entry.name for entry in os.scandir(self._place(path)) if entry.is_dir()]
                else:
                    entries = self.fs.ls(self._place(path), detail=True)
                    names = [str(e["name"]).rstrip("/").rpartition("/")[2] for e in entries if e["type"] == "directory"]
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(name for name in names if not name.startswith("."))

    def modified(self, path: str) -> float | None:
        """When a file, or a folder or anything in it, was last written (as in :class:`FileInfo`); None if unknown."""
        times = [info.modified for info in self.files(path).values()]
        if not times or self.is_local:
            with named_failures(self.uri(path), "read"):
                times.append(_modified(self.fs.info(self._place(path))))
        return None if None in times else max(time for time in times if time is not None)

    def files(self, path: str = "") -> dict[str, FileInfo]:
        """Every file below a folder by its path, in order, hidden ones too."""
        with named_failures(self.uri(path), "listed"):
            if self.is_local:
                return dict(sorted(self._local_files(path)))
            found: Mapping[str, Any] = self.fs.find(self._place(path), detail=True)
        start = len(self.root) + 1
        return {str(name)[start:]: FileInfo(int(info["size"]), _modified(info)) for name, info in sorted(found.items())}

    def _local_files(self, path: str) -> Iterator[tuple[str, FileInfo]]:
        """Unlike fsspec's own listing it does not lose a folder in which a file vanishes meanwhile."""
        for folder, _, names in os.walk(self._place(path)):
            for name in names:
                with suppress(FileNotFoundError):
                    state = Path(folder, name).stat()
                    yield f"{folder}/{name}"[len(self.root) + 1 :], FileInfo(state.st_size, state.st_mtime)


def partial_path(target: Path) -> Path:
    """A new hidden name beside ``target``, like ``PARTIAL_NAME``, under which it is written until it is whole."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}{PARTIAL}")


def files_below(folder: Path) -> list[Path]:
    """All files below a local folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _modified(info: Mapping[str, Any]) -> float | None:
    for name in ("LastModified", "mtime", "updated", "last_modified"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None
