"""Processes that write a lake and are killed at a chosen moment, and what a reader sees meanwhile.

What belongs here: the writer, its death and the watcher. What does not: which moments are tried (the tests).
"""

import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import pandas  # noqa: F401  # like s3fs: loaded before the processes that write are forked
import pyarrow as pa
import s3fs  # noqa: F401

from components.data.lake import CURRENT, RECORD, Lake, Record
from components.data.storage import Storage
from components.pipeline.captions import build_training_set
from components.pipeline.ingest import build_image_set, ingest, shard_names
from components.pipeline.workspace import Made, Workspace
from components.schemas import RECAPTIONED
from tests.workspaces import scenes_workspace

processes = multiprocessing.get_context("forkserver")  # children start with everything imported, and without threads
processes.set_forkserver_preload(["tests.writers"])

UNLIKE = ("seconds", "cpu_seconds", "gpu_seconds", "peak_memory_gib", "cost")  # of two records of the same
WRITING = ("open", "os.rename", "os.mkdir", "os.remove", "os.utime", "os.rmdir", "shutil.copytree")


def write_lake(ws: Workspace) -> None:
    """Leave one thing of every kind in the lake: tables, manifests, a model, a report, their records and pictures."""
    failures = [result.failure for result in ingest(ws, shard_names(ws)) if result.failure]
    assert not failures, failures
    build_image_set(ws)
    caption_all(ws)
    build_training_set(ws)
    ws.materialize("vae", {}, None, lambda _: _folder(ws, "models/vae"))
    ws.materialize("evaluation_report", {}, None, lambda _: _folder(ws, "reports/evaluation_report"))


def caption_all(ws: Workspace, ssc_captioner: str = "s/1", dsc_captioner: str = "d/1") -> None:
    """Stand in for the captioners: captions that say who wrote them and for which picture; the first is rejected."""
    for shard in shard_names(ws):
        raw = ws.parent("raw_pairs", shard)
        rows = ws.lake.read_table(raw.path, ["key", "sha256", "caption"]).to_pylist()
        written = [
            {
                **row,
                "ssc": f"{row['key']} by {ssc_captioner}",
                "dsc": f"{row['key']} by {dsc_captioner}",
                "ssc_captioner": ssc_captioner,
                "dsc_captioner": dsc_captioner,
                "ssc_score": 20.0,
                "dsc_score": 30.0,
                "rejected": "dsc empty" if i == 0 else None,
            }
            for i, row in enumerate(rows)
        ]
        table = pa.Table.from_pylist(written, RECAPTIONED.schema)
        path, digest = ws.lake.write_table(f"recaptioned/{shard}", table, RECAPTIONED)
        metadata = {"rejected": 1, "ssc_captioner": ssc_captioner, "dsc_captioner": dsc_captioner}
        made = Made(digest, path, num_rows=len(rows), metadata=metadata)
        ws.keep("recaptioned", "f", {"raw_pairs": raw.data_version}, made, seconds=0.0, shard=shard)


def _folder(ws: Workspace, place: str) -> Made:
    folder = ws.scratch / "made" / place
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "unet" / "weights.bin").write_bytes(bytes(range(256)) * 100)
    version = ws.lake.add_folder(place, folder)
    return Made(version, f"{place}/{version}")


# ------------------------------------------------------------------------------------------------------- the process
def _write(lake: str, scratch: str, environment: Mapping[str, str], die: Callable[[str], None] | None) -> None:
    os.environ.update(environment)
    ws = replace(scenes_workspace(Path(scratch), {"data.max_rows_per_shard": "24"}), lake=Lake(lake))
    if die:
        die(lake)
    write_lake(ws)


def start(
    lake: str, scratch: Path, environment: Mapping[str, str] | None = None, die: Callable[[str], None] | None = None
) -> multiprocessing.Process:
    """Start a process that writes a lake; ``die`` prepares its death."""
    process = processes.Process(target=_write, args=(lake, str(scratch), environment or {}, die))
    process.start()
    return process  # pyright: ignore[reportReturnType]


class AtFileEvent:
    """Kill this process with SIGKILL at its n-th event (from 1) that changes files of a local lake."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, lake: str) -> None:
        seen = 0

        def hook(event: str, arguments: tuple) -> None:
            nonlocal seen
            if event in WRITING and str(arguments[0]).startswith(lake) and _changes(event, arguments):
                seen += 1
                if seen == self.number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)


class AtFileSize:
    """Let the kernel kill this process as it writes the byte behind the first ``limit`` ones of a file of the lake."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __call__(self, lake: str) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        create, put_folder = Storage.create, Storage.put_folder

        @contextmanager
        def limited_create(storage: Storage, path: str) -> Iterator[IO[bytes]]:
            with self.limited(), create(storage, path) as file:
                yield file

        def limited_put_folder(storage: Storage, path: str, folder: Path) -> None:
            with self.limited():
                put_folder(storage, path, folder)

        Storage.create, Storage.put_folder = limited_create, limited_put_folder

    @contextmanager
    def limited(self) -> Iterator[None]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _changes(event: str, arguments: tuple) -> bool:
    return event != "open" or (isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR)))


# -------------------------------------------------------------------------------------------------------- the reader
def contents(lake: Lake) -> dict[str, bytes]:
    """What a reader sees: every file that is not hidden, comparable between runs."""
    visible = [path for path in lake.files() if not any(part.startswith(".") for part in path.split("/"))]
    return {path: comparable(path, data) for path, data in lake.read_many(visible).items()}


def comparable(path: str, data: bytes) -> bytes:
    """A file's bytes; records without how long they took and in how much memory, which no two runs share."""
    if not path.endswith((CURRENT, RECORD)):
        return data
    record = json.loads(data)
    record["metadata"].pop("pictures_per_second", None)
    return json.dumps({**record, **dict.fromkeys(UNLIKE, 0)}, sort_keys=True).encode()


class Watcher:
    """Reads all of a lake again and again while others write it, and keeps what must not be seen."""

    def __init__(self, lake: Lake, expected: Mapping[str, bytes]) -> None:
        self.lake, self.expected = lake, expected
        self.wrong: list[str] = []
        self.num_looks = 0
        self._stop = threading.Event()
        self._watcher = ThreadPoolExecutor(1)

    def __enter__(self) -> "Watcher":
        self._watching = self._watcher.submit(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watcher.shutdown()
        self._watching.result()  # raises what ended the watching

    def _watch(self) -> None:
        self.look()
        while not self._stop.wait(0.02 if self.lake.is_local else 0.2):
            self.look()

    def look(self) -> None:
        """Look once: every file must be as it will be, and what a current record names must be there."""
        self.num_looks += 1
        before = contents(self.lake)
        self.wrong += [f"{path} is partial" for path, data in before.items() if data != self.expected.get(path)]
        records = [Record(**json.loads(data)) for path, data in before.items() if path.endswith(CURRENT)]
        after = contents(self.lake) if records else {}
        for record in records:
            named = {path for path in self.expected if path == record.path or path.startswith(f"{record.path}/")}
            named |= set(record.pictures.values())
            self.wrong += [f"{record.asset} names {path}, which is not there" for path in named - set(after)]
