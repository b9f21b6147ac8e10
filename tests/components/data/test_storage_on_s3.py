"""A lake and sources on S3 over HTTP: what fails for the moment is repeated, what fails for good is named."""

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.lake import Lake, LakeError, ReadOnlyLake, Record
from components.data.parquet_reader import ParquetReader
from components.data.sources import UnreadableShard, resolve_uri
from components.data.storage import Storage, StorageError, open_file
from components.data.webdataset_reader import WebdatasetReader
from components.schemas import LATENTS
from tests.s3 import Fault, FaultyProxy, Request

ROWS = 600
LATENT = np.arange(16, dtype=np.float16)


@pytest.fixture(autouse=True)
def few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")


@contextmanager
def patience(kind: str, lake: Lake, timeout: float, attempts: int) -> Iterator[Lake]:
    """The lake as somebody opens it who waits so long for an answer, where a fault's kind is silence."""
    with pytest.MonkeyPatch.context() as environment:
        if kind in ("stall", "slow"):
            environment.setenv("ATELIER_STORAGE_TIMEOUT", str(timeout))
            environment.setenv("AWS_MAX_ATTEMPTS", str(attempts))
        yield Lake(lake.uri())


@pytest.fixture
def lake(bucket: str) -> Lake:
    return Lake(f"{bucket}/lake")


def latents(first: int = 0) -> pa.Table:
    rows = [{"key": f"k{first + i}", "sha256": "s" * 64, "latents": LATENT} for i in range(ROWS)]
    return pa.Table.from_pylist(rows, LATENTS.schema)


def record(path: str, **changes) -> Record:
    values = {"asset": "latents", "kind": "table", "dataset": "d", "recipe": "r", "fingerprint": "f", "shard": "00000"}
    return Record(**{**values, "data_version": "v", "path": path, **changes})


def filled(lake: Lake, tmp_path: Path) -> None:
    """A table with its record, a model folder, and sources of both formats."""
    path, _ = lake.write_table("latents/00000", latents(), LATENTS)
    lake.set_current(record(path))
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "weights").write_bytes(b"w" * 50_000)
    (folder / "config.json").write_text("{}")
    version = lake.add_folder("models/vae", folder)
    lake.set_current(record(f"models/vae/{version}", asset="vae", kind="model", shard=None, data_version=version))
    table = BytesIO()
    pq.write_table(pa.table({"png": [b"P" * 2000] * 20, "caption": ["c"] * 20}), table)
    lake.write_bytes("sources/00000.parquet", table.getvalue())
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("a.png", "a.txt", "b.png", "b.txt"):
            info = tarfile.TarInfo(name)
            info.size = 3000
            tar.addfile(info, BytesIO(b"x" * 3000))
    lake.write_bytes("sources/00000.tar", archive.getvalue())


def part(lake: Lake) -> str:
    found = lake.record("latents", "table", "00000")
    assert found is not None
    return found.path


def vae(lake: Lake) -> str:
    found = lake.record("vae", "model")
    assert found is not None
    return found.path


READS: dict[str, tuple[str, Callable[[Lake, Path], object]]] = {  # what the request's path holds, and the reading
    "a table": (".parquet", lambda lake, _: lake.read_table(part(lake)).num_rows),
    "rows in batches": (".parquet", lambda lake, _: sum(b.num_rows for b in lake.batches(part(lake), ["key"]))),
    "records": ("current.json", lambda lake, _: list(lake.records("latents"))),
    "a listing": ("list-type", lambda lake, _: len(lake.files("models"))),
    "a model folder": (
        "weights",
        lambda lake, scratch: sorted(path.name for path in lake.fetch_folder(vae(lake), scratch).iterdir()),
    ),
    "a Parquet source": ("sources", lambda lake, _: len(list(_parquet(lake).read(0)))),
    "a tar source": ("sources", lambda lake, _: [row.key for row in _tar(lake).read(0)]),
}  # fmt: skip


def _parquet(lake: Lake) -> ParquetReader:
    return ParquetReader(resolve_uri(lake.uri("sources/*.parquet")))


def _tar(lake: Lake) -> WebdatasetReader:
    return WebdatasetReader(resolve_uri(lake.uri("sources/*.tar")))


@pytest.mark.parametrize("what", READS)
def test_reading_goes_on_after_a_passing_fault(what: str, lake: Lake, s3: FaultyProxy, tmp_path: Path) -> None:
    filled(lake, tmp_path)
    where, read = READS[what]
    expected = read(lake, tmp_path / "quiet")
    kinds = ("busy", "truncated", "stall", *(("reset", "reset_after", "slow") if what == "a table" else ()))
    for number, kind in enumerate(kinds):
        s3.faults = [Fault(kind, "GET", where, seconds=2)]
        with patience(kind, lake, timeout=1, attempts=8) as opened:
            assert read(opened, tmp_path / str(number)) == expected, kind
        assert s3.faults[0].times == 0, f"{kind} was never met"


@pytest.mark.parametrize("kind", ["busy", "reset", "reset_after"])
def test_writing_goes_on_after_a_passing_fault(kind: str, lake: Lake, s3: FaultyProxy) -> None:
    s3.faults = [Fault(kind, "PUT", "latents")]
    path, _ = lake.write_table("latents/00000", latents(), LATENTS)
    assert lake.read_table(path).num_rows == ROWS
    assert s3.faults[0].times == 0


@pytest.mark.parametrize("kind", ["busy", "reset", "truncated", "stall"])
def test_what_cannot_be_read_is_named_with_its_remedy(kind: str, lake: Lake, s3: FaultyProxy, tmp_path: Path) -> None:
    filled(lake, tmp_path)
    path = part(lake)
    s3.faults = [Fault(kind, "GET", path, times=1000)]
    with patience(kind, lake, timeout=0.3, attempts=2) as opened:
        with pytest.raises(
            StorageError, match=rf"{lake.uri(path)} cannot be read: .*AWS_ENDPOINT_URL.*run the same command"
        ):
            opened.read_table(path)
        with pytest.raises(StorageError, match=path), open_file(lake.uri(path)) as file:
            file.read()
    s3.faults = []
    assert lake.read_table(path).num_rows == ROWS


@pytest.mark.parametrize("kind", ["busy", "reset", "cut"])
def test_a_write_that_fails_is_named_and_leaves_what_was_there(kind: str, lake: Lake, s3: FaultyProxy) -> None:
    lake.write_bytes("notes/old", b"old")
    s3.faults = [Fault(kind, "PUT", "notes", times=1000)]
    for name in ("old", "new"):
        with pytest.raises(StorageError, match=rf"notes/{name} cannot be written: .*run the same command"):
            lake.write_bytes(f"notes/{name}", b"n" * 100_000)
    s3.faults = []
    assert lake.read_bytes("notes/old") == b"old"
    assert list(lake.files("notes")) == ["notes/old"]


def write_large(lake: Lake) -> None:
    with lake.create("big/file") as file:
        for _ in range(33):
            file.write(b"0123456789abcdef" * 2**16)


def test_large_files_arrive_whole_or_not_at_all(lake: Lake, s3: FaultyProxy) -> None:
    """They are sent in parts: while these arrive, and where one is lost, no object is there."""
    other = Storage(lake.uri())
    seen: list[list[str]] = []

    def look(request: Request) -> None:
        if "partNumber=2" in request.path:
            s3.watch = lambda _: None
            seen.append(list(other.files("big")))

    s3.watch = look
    write_large(lake)
    assert seen == [[]]
    assert lake.files("big")["big/file"].num_bytes == 33 * 2**20
    lake.remove("big/file")
    s3.faults = [Fault("busy", "PUT", "partNumber=2", times=1000)]
    with pytest.raises(StorageError, match="big/file cannot be written"):
        write_large(lake)
    assert list(lake.files("big")) == []


def test_a_folder_that_cannot_be_written_names_the_object(lake: Lake, s3: FaultyProxy, tmp_path: Path) -> None:
    filled(lake, tmp_path)
    s3.faults = [Fault("busy", "PUT", "unet/weights", times=1000)]
    with pytest.raises(StorageError, match=r"models/clip/\w+/unet/weights cannot be written"):
        lake.add_folder("models/clip", tmp_path / "model")


def fail_midway(lake: Lake) -> None:
    with lake.create("a/file") as file:
        file.write(b"half")
        raise KeyError("the writer's own mistake")


def test_an_unfilled_file_never_appears(lake: Lake, tmp_path: Path) -> None:
    for storage in (lake, Lake(str(tmp_path))):
        with pytest.raises(KeyError, match="own mistake"):
            fail_midway(storage)
        assert list(storage.files()) == []


QUESTIONS: dict[str, Callable[[Lake], object]] = {
    "exists": lambda lake: lake.exists("latents/00000/current.json"),
    "record": lambda lake: lake.record("latents", "table", "00000"),
    "records": lambda lake: lake.records("latents"),
    "folders": lambda lake: lake.folders("models"),
    "files": lambda lake: lake.files(),
    "glob": lambda lake: resolve_uri(lake.uri("sources/*.tar")),
    "source": lambda lake: resolve_uri(lake.uri("sources/00000.tar")),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_storage_that_does_not_answer_is_not_an_empty_one(
    question: str, lake: Lake, s3: FaultyProxy, tmp_path: Path
) -> None:
    filled(lake, tmp_path)
    s3.faults = [Fault("busy", times=1000)]
    with pytest.raises((StorageError, OSError)) as failure:
        QUESTIONS[question](lake)
    assert not isinstance(failure.value, FileNotFoundError)


@pytest.mark.parametrize("name", ["a Parquet source", "a tar source"])
def test_a_source_that_stays_cut_short_fails_as_a_shard(name: str, lake: Lake, s3: FaultyProxy, tmp_path: Path) -> None:
    filled(lake, tmp_path)
    s3.faults = [Fault("truncated", "GET", "sources/00000", times=1000)]
    with pytest.raises(UnreadableShard, match=r"sources/00000\.\w+ cannot be read.*materialize its partition again"):
        READS[name][1](lake, tmp_path)


def test_a_folder_that_is_not_whole_is_refused(lake: Lake, tmp_path: Path) -> None:
    filled(lake, tmp_path)
    path = vae(lake)
    lake.remove(f"{path}/unet/weights")
    with pytest.raises(LakeError, match=rf"{path} is missing or not whole.*materialize the asset again"):
        lake.fetch_folder(path, tmp_path / "scratch")
    assert not list((tmp_path / "scratch" / "models").iterdir())
    lake.add_folder("models/vae", tmp_path / "model")
    assert (lake.fetch_folder(path, tmp_path / "scratch") / "unet" / "weights").stat().st_size == 50_000


def test_a_new_object_is_seen_at_once(lake: Lake, bucket: str) -> None:
    other = Lake(f"{bucket}/lake")
    assert other.records("latents") == {}
    assert not other.exists("latents/00000/current.json")
    lake.set_current(record("x"))
    assert list(other.records("latents")) == ["00000"]
    lake.set_current(record("x", shard="00001"))
    assert list(other.records("latents")) == ["00000", "00001"]


def test_a_lake_that_is_not_there_says_so(s3: FaultyProxy) -> None:
    with pytest.raises(LakeError, match=r"the lake s3://no-such-bucket/x is not writable .*ATELIER_LAKE"):
        Lake("s3://no-such-bucket/x").check_writable()


def test_a_dry_run_writes_nothing(lake: Lake, tmp_path: Path) -> None:
    filled(lake, tmp_path)
    before = lake.files()
    dry = ReadOnlyLake(lake.uri())
    dry.check_writable()
    assert dry.write_table("latents/00001", latents(9), LATENTS)[0].startswith("latents/00001/")
    dry.add_folder("models/clip", tmp_path / "model")
    dry.set_current(record("x"))
    assert lake.files() == before
