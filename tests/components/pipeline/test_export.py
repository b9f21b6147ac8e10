"""What is exported can be read back by webdataset, by Hugging Face's datasets and by our own readers."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.data.catalog import split_of
from components.data.ingest import IngestConfig, ingest_shard
from components.data.parquet_reader import ParquetReader
from components.data.sources import resolve_uri
from components.data.storage import Storage, StorageError
from components.data.webdataset_reader import WebdatasetReader
from components.pipeline.export import ExportError, ExportPlan, Format, default_caption, export, file_name
from components.pipeline.ingest import build_image_set
from components.pipeline.lineage import Ledger
from components.pipeline.workspace import UnfitParent, Workspace
from tests.finished_lake import finished_lake
from tests.s3 import Fault, FaultyProxy


@pytest.fixture(scope="module")
def ws(tmp_path_factory) -> Workspace:
    return finished_lake(tmp_path_factory.mktemp("finished")).ws


@pytest.fixture(scope="module")
def rows(ws: Workspace) -> dict[str, dict]:
    """Rows that may leave with a DSC, by key: the lake's own view of them."""
    found = {}
    for shard, part in ws.lake.records("raw_pairs").items():
        captions = ws.lake.read_table(ws.parent("recaptioned", shard).path).to_pylist()
        for raw, written in zip(ws.lake.read_table(part.path).to_pylist(), captions, strict=True):
            if written["rejected"] is None:
                found[raw["key"]] = {**raw, "dsc": written["dsc"], "ssc": written["ssc"]}
    assert len(found) == 46
    return found


def exported(ws: Workspace, folder: Path, form: str, **options) -> Path:
    target = folder / form
    export(ws, str(target), ExportPlan(form, **{"caption": "dsc", **options}))
    return target


def pixels_of(image: bytes | Image.Image) -> np.ndarray:
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    with Image.open(io.BytesIO(image)) as opened:
        return np.asarray(opened.convert("RGB"))


def same(found: dict[str, tuple], rows: dict[str, dict]) -> bool:
    """Whether (picture, caption) by key are the lake's."""
    return set(found) == set(rows) and all(
        caption == rows[key]["dsc"] and np.array_equal(pixels_of(image), pixels_of(rows[key]["image"]))
        for key, (image, caption) in found.items()
    )


# ------------------------------------------------------------------------------------------------ read back by others
def test_webdataset_reads_the_tars(ws: Workspace, rows, tmp_path: Path) -> None:
    import webdataset

    tars = sorted(str(path) for path in exported(ws, tmp_path, "webdataset").glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("pil"))
    assert same({s["json"]["key"]: (s["png"], s["txt"]) for s in samples}, rows)
    for sample in samples:
        assert sample["__key__"] == file_name(sample["json"]["key"])
        assert sample["json"]["original_caption"] == rows[sample["json"]["key"]]["caption"]


def test_hugging_face_reads_every_layout(ws: Workspace, rows, tmp_path: Path) -> None:
    import datasets

    def load(kind: str, **options):
        return datasets.load_dataset(kind, split="train", cache_dir=str(tmp_path / "cache"), **options)

    parquet = exported(ws, tmp_path, "parquet")
    table = load("parquet", data_files=str(parquet / "*.parquet")).cast_column("png", datasets.Image())
    assert same({row["key"]: (row["png"], row["caption"]) for row in table}, rows)
    folder = load("imagefolder", data_dir=str(exported(ws, tmp_path, "files")))
    assert same({row["key"]: (row["image"], row["caption"]) for row in folder}, rows)
    tars = load("webdataset", data_files=str(exported(ws, tmp_path, "webdataset") / "*.tar"))
    assert same({row["json"]["key"]: (row["png"], row["txt"]) for row in tars}, rows)


READERS: dict[str, Callable] = {
    "webdataset": lambda folder: WebdatasetReader(resolve_uri(f"{folder}/*.tar")),
    "parquet": lambda folder: ParquetReader(resolve_uri(f"{folder}/*.parquet")),
}


@pytest.mark.parametrize("form", READERS)
def test_our_own_readers_take_all_of_it_back(form: str, ws: Workspace, rows, tmp_path: Path) -> None:
    reader = READERS[form](exported(ws, tmp_path, form))
    found = {}
    for shard in range(len(reader.shards())):
        result = ingest_shard(reader, shard, IngestConfig(duplicate_images="keep"))
        assert result.reasons == {}
        found |= {row["key"]: row for row in result.table.to_pylist()}
    assert same({key: (row["image"], row["caption"]) for key, row in found.items()}, rows)
    assert {row["sha256"] for row in found.values()} == {row["sha256"] for row in rows.values()}
    assert {row["license"] for row in found.values()} == {ws.dataset.license}


def test_parquet_has_the_form_of_img2dataset(ws: Workspace, tmp_path: Path) -> None:
    schema = pq.read_schema(exported(ws, tmp_path, "parquet") / "00000.parquet")
    assert {"key", "url", "caption", "status", "error_message", "width", "height", "sha256", "png"} <= set(schema.names)
    assert set(pq.read_table(tmp_path / "parquet" / "00000.parquet")["status"].to_pylist()) == {"success"}


def test_files_have_their_captions_beside_them(ws: Workspace, rows, tmp_path: Path) -> None:
    folder = exported(ws, tmp_path, "files")
    found = {}
    for text in folder.glob("*/*.txt"):
        picture = text.with_suffix(".png").read_bytes()
        found[text.stem] = (picture, text.read_text())
    assert same(found, {file_name(key): row for key, row in rows.items()})
    assert not list(folder.rglob("*.partial"))


# ---------------------------------------------------------------------------------------------------- which rows leave
def test_captions_splits_and_shards_are_chosen(ws: Workspace, rows, tmp_path: Path) -> None:
    assert default_caption(ws) == "dsc"
    (first,) = export(ws, str(tmp_path / "a"), ExportPlan("parquet", "caption", "train", ("00001",)))
    table = pq.read_table(tmp_path / "a" / "00001.parquet").to_pylist()
    fraction = ws.dataset.evaluation_fraction
    assert first.num_rows == len(table) == 24 - first.left_out.get("in the evaluation split", 0)
    assert {split_of(row["key"], fraction) for row in table} == {row["split"] for row in table} == {"train"}
    assert all(row["caption"] == row["original_caption"] for row in table)
    rejected = [row for row in table if row["key"] not in rows]
    assert len(rejected) == 1  # its original caption is as good as any
    written = export(ws, str(tmp_path / "b"), ExportPlan("parquet", "ssc"))
    assert sum(one.num_rows for one in written) == 46
    assert [one.left_out for one in written] == [{"its ssc was rejected": 1}] * 2


def test_opted_out_rows_stay(tmp_path: Path, monkeypatch) -> None:
    ws = finished_lake(tmp_path, rows_per_shard=8).ws
    key = ws.lake.read_table(ws.parent("raw_pairs", "00000").path)["key"][3].as_py()
    opt_out(ws, tmp_path, key, monkeypatch)
    first, _ = export(ws, str(tmp_path / "out"), ExportPlan("webdataset", "caption"))
    assert (first.num_rows, first.left_out) == (7, {"opted out": 1})
    assert key not in [row.key for row in READERS["webdataset"](tmp_path / "out").read(0)]


def test_a_shard_without_captions_says_what_to_do(tmp_path: Path) -> None:
    ws = finished_lake(tmp_path, rows_per_shard=8).ws
    ws.lake.remove("recaptioned/00001/current.json")
    assert default_caption(ws) == "caption"
    with pytest.raises(UnfitParent, match=r"recaptioned\[00001\] is missing .*--caption caption"):
        export(ws, str(tmp_path / "out"), ExportPlan("webdataset", "dsc"))
    assert [one.num_rows for one in export(ws, str(tmp_path / "raw"), ExportPlan("webdataset", "caption"))] == [8, 8]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("000000012", "000000012"),
        ("nlvr/train-10-0.jpg", "nlvr%2Ftrain-10-0%2Ejpg"),
        ("../../etc/passwd", "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd"),
        ("größe 1", "gr%C3%B6%C3%9Fe 1"),
    ],
)
def test_keys_become_names_of_files(key: str, name: str) -> None:
    assert file_name(key) == name


@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=512), unique=True))
@settings(deadline=None)
def test_names_are_safe_and_differ_where_keys_do(keys: list[str]) -> None:
    names = [file_name(key) for key in keys]
    assert len(set(names)) == len(keys)
    assert not any("/" in name or "." in name or len(name.encode()) > 180 for name in names)


def test_long_keys_have_short_names_of_their_own() -> None:
    names = {file_name("k" * 500 + str(i)) for i in range(10)}
    assert len(names) == 10
    assert max(map(len, names)) <= 180


# ------------------------------------------------------------------------------------------------ whole, and once only
def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("form", ["webdataset", "parquet", "files"])
def test_the_same_lake_gives_the_same_bytes_and_nothing_is_written_twice(form: str, ws: Workspace, tmp_path) -> None:
    first = exported(ws, tmp_path / "a", form)
    second = exported(ws, tmp_path / "b", form)
    assert digests(first) == digests(second)
    times = {path: path.stat().st_mtime_ns for path in first.glob("0*")}
    assert all(one.is_reused for one in export(ws, str(first), ExportPlan(form, "dsc")))
    assert times == {path: path.stat().st_mtime_ns for path in first.glob("0*")}
    assert digests(first) == digests(second)


def test_another_export_in_the_same_place_is_refused(ws: Workspace, tmp_path: Path) -> None:
    target = exported(ws, tmp_path, "webdataset")
    with pytest.raises(ExportError, match="holds an export of other rows or of another form; name another folder"):
        export(ws, str(target), ExportPlan("webdataset", "ssc"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(ExportError, match="is not empty and holds no export"):
        export(ws, str(tmp_path / "full"), ExportPlan("webdataset", "dsc"))
    with pytest.raises(ExportError, match="there is no shard 00007; there are 00000 to 00001"):
        export(ws, str(tmp_path / "new"), ExportPlan("webdataset", "dsc", shards=("00007",)))


@pytest.mark.parametrize("form", ["webdataset", "files"])
def test_an_export_to_s3_that_breaks_off_goes_on_where_it_stood(
    form: str, ws: Workspace, bucket: str, s3: FaultyProxy, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    target, plan = f"{bucket}/out", ExportPlan(form, "dsc")
    s3.faults = [Fault("busy", "PUT", "/out/00001", times=1000)]
    with pytest.raises(StorageError, match=rf"{target}/00001\S* cannot be written"):
        export(ws, target, plan)
    storage = Storage(target)
    assert "export.json" not in storage.files()
    assert not any(path.startswith("00001") for path in storage.files())
    s3.faults, start = [], len(s3.requests)
    assert [one.is_reused for one in export(ws, target, plan)] == [True, False]
    assert not [r.path for r in s3.requests[start:] if r.method == "PUT" and "/out/00000" in r.path]
    there = {p: hashlib.sha256(data).hexdigest() for p, data in storage.read_many(list(storage.files())).items()}
    assert there == digests(exported(ws, tmp_path, form))


def opt_out(ws: Workspace, folder: Path, key: str, monkeypatch) -> None:
    (folder / "list.jsonl").write_text(json.dumps({"key": key}))
    monkeypatch.setenv("ATELIER_OPT_OUT", str(folder / "list.jsonl"))
    build_image_set(ws)


def drop_last_shard(ws: Workspace) -> None:
    record, images = ws.read_manifest("image_set")
    ws.lake.write_json(record.path, {**images, "shards": images["shards"][:-1]})


@pytest.mark.parametrize("target", ["{folder}/out", "memory://{folder}/out"])
@pytest.mark.parametrize("form", ["webdataset", "parquet", "files"])
def test_a_later_run_leaves_what_an_export_to_a_new_place_holds(
    form: Format, target: str, tmp_path: Path, monkeypatch
) -> None:
    ws = finished_lake(tmp_path, rows_per_shard=8).ws
    plan, storage = ExportPlan(form, "caption"), Storage(target.format(folder=tmp_path))
    export(ws, storage.uri(), plan)
    opt_out(ws, tmp_path, ws.lake.read_table(ws.parent("raw_pairs", "00000").path)["key"][3].as_py(), monkeypatch)
    assert [one.is_reused for one in export(ws, storage.uri(), plan)] == [False, False]
    drop_last_shard(ws)
    assert [(one.is_reused, one.num_rows) for one in export(ws, storage.uri(), plan)] == [(True, 7)]
    export(ws, str(tmp_path / "new"), plan)
    there = {p: hashlib.sha256(data).hexdigest() for p, data in storage.read_many(list(storage.files())).items()}
    assert there == digests(tmp_path / "new")


def test_a_later_run_that_breaks_off_does_not_pass_for_whole(tmp_path: Path, monkeypatch) -> None:
    ws = finished_lake(tmp_path, rows_per_shard=8).ws
    plan, out = ExportPlan("files", "caption"), tmp_path / "out"
    export(ws, str(out), plan)
    before = digests(out)
    opt_out(ws, tmp_path, ws.lake.read_table(ws.parent("raw_pairs", "00001").path)["key"][3].as_py(), monkeypatch)
    with monkeypatch.context() as broken:
        broken.setattr(Storage, "put_folder", lambda *_: (_ for _ in ()).throw(StorageError("full")))
        with pytest.raises(StorageError, match="full"):
            export(ws, str(out), plan)
    assert not (out / "export.json").exists()
    monkeypatch.delenv("ATELIER_OPT_OUT")
    build_image_set(ws)  # as it was at first: what the broken run took away must not count as written
    export(ws, str(out), plan)
    assert digests(out) == before


def test_copies_that_the_image_set_leaves_out_stay(tmp_path: Path) -> None:
    ws = finished_lake(tmp_path, rows_per_shard=8).ws
    record, images = ws.read_manifest("image_set")
    key = ws.lake.read_table(images["shards"][0]["path"])["key"][2].as_py()
    images["shards"][0]["set_aside"] = [2]
    ws.lake.write_json(record.path, images)
    first, _ = export(ws, str(tmp_path / "out"), ExportPlan("webdataset", "caption"))
    assert (first.num_rows, first.left_out) == (7, {"a copy": 1})
    assert key not in [row.key for row in READERS["webdataset"](tmp_path / "out").read(0)]
    assert {one.standing for one in Ledger(ws).row(key).sets} == {"copy of another row"}
    assert Ledger(ws).row(key).models == []
