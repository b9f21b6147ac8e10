"""The lake writes whole things or nothing, and says what is wrong."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.lake import Lake, LakeError, Record, digest_of, folder_digest
from components.data.storage import StorageError
from components.schemas import LATENTS, RAW_PAIRS, TABLES, type_name


def record(**changes) -> Record:
    values = {
        "asset": "raw_pairs",
        "kind": "table",
        "dataset": "scenes",
        "recipe": "smoke",
        "fingerprint": "f",
        "data_version": "v1",
        "path": "raw_pairs/00000/v1.parquet",
        "shard": "00000",
    }
    return Record(**{**values, **changes})


def raw_pairs(num_rows: int) -> pa.Table:
    texts = ("key", "sha256", "source_sha256", "perceptual_hash", "caption", "source", "license")
    columns = {name: [f"{name}{i}" for i in range(num_rows)] for name in texts}
    columns |= {
        "image": [b"x"] * num_rows,
        "colours": [b"x"] * num_rows,
        "width": [1] * num_rows,
        "height": [1] * num_rows,
    }
    return pa.table(columns)


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def test_the_same_rows_are_the_same_part(lake):
    first = lake.write_table("raw_pairs/00000", raw_pairs(700), RAW_PAIRS)
    assert lake.write_table("raw_pairs/00000", raw_pairs(700), RAW_PAIRS) == first
    assert lake.read_table(first[0]).num_rows == 700
    assert lake.row_group_sizes(first[0]) == [512, 188]


def test_a_null_where_none_is_allowed_is_refused_by_name(lake):
    table = raw_pairs(2).set_column(0, "key", pa.array(["a", None]))
    with pytest.raises(ValueError, match="'key' with null values"):
        lake.write_table("raw_pairs/00000", table, RAW_PAIRS)
    assert not lake.exists("raw_pairs/00000")


def test_a_missing_column_is_refused(lake):
    with pytest.raises((KeyError, ValueError)):
        lake.write_table("latents/00000", raw_pairs(1), LATENTS)


def test_records_are_found_by_shard_in_order_and_old_ones_stay(lake):
    for shard in ("00001", "00000"):
        lake.set_current(record(shard=shard))
    lake.set_current(record(data_version="v2"))
    assert list(lake.records("raw_pairs")) == ["00000", "00001"]
    assert lake.record("raw_pairs", "table", "00000").data_version == "v2"
    assert lake.record_of("raw_pairs", "table", "v1", "00000") == record()
    assert lake.record("vae", "model") is None


def test_a_model_folder_is_named_by_its_content(lake, tmp_path):
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "config.json").write_text("{}")
    version = lake.add_folder("models/vae", folder)
    assert version == folder_digest(folder)
    assert lake.add_folder("models/vae", folder) == version
    lake.set_current(record(asset="vae", kind="model", shard=None, data_version=version, path=f"models/vae/{version}"))
    assert lake.read_bytes("models/vae/latest").decode() == version
    assert json.loads((lake.fetch_folder(f"models/vae/{version}", tmp_path) / "unet" / "config.json").read_text()) == {}


@pytest.mark.parametrize("place", ["{folder}/lake", "memory://{folder}/lake"])
@pytest.mark.parametrize("damage", ["other bytes", "a file too many", "a file too few"])
def test_a_damaged_model_folder_is_mended_when_it_is_made_again(tmp_path, place, damage):
    lake, folder = Lake(place.format(folder=tmp_path)), tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "weights"):
        (folder / name).write_text(name)
    path = f"models/vae/{lake.add_folder('models/vae', folder)}"
    whole = lake.read_many(list(lake.files(path)))
    if damage == "a file too few":
        lake.remove(f"{path}/weights")
    else:
        lake.write_bytes(f"{path}/{'weights' if damage == 'other bytes' else 'more'}", b"rubbish")
    if not lake.is_local:
        with pytest.raises(LakeError, match="the digest that is its name; materialize the asset again with --force"):
            lake.fetch_folder(path, tmp_path / "scratch")
    lake.add_folder("models/vae", folder)
    assert lake.read_many(list(lake.files(path))) == whole
    assert folder_digest(lake.fetch_folder(path, tmp_path / "scratch")) == path.rpartition("/")[2]


def test_what_an_older_schema_lacks_is_null(lake):
    path, _ = lake.write_table("raw_pairs/00000", raw_pairs(3), RAW_PAIRS)
    old = f"{path}.old"
    pq.write_table(lake.read_table(path).drop_columns(["perceptual_hash"]), f"{lake.root}/{old}")
    for each, look in ((path, "perceptual_hash1"), (old, None)):
        found = lake.read_known(each, ["perceptual_hash", "key"], [("key", "==", "key1")])
        assert found.to_pylist() == [{"perceptual_hash": look, "key": "key1"}]


def test_a_write_that_fails_leaves_the_old_file_and_no_partial_one(lake, monkeypatch):
    lake.write_bytes("a/file", b"old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(StorageError, match=r"a/file cannot be written: OSError: .*No space left.*MiB free.*Make room"):
        lake.write_bytes("a/file", b"new")
    monkeypatch.undo()
    assert lake.read_bytes("a/file") == b"old"
    assert [path.name for path in (Path(lake.root) / "a").iterdir()] == ["file"]


def test_a_lake_that_cannot_be_written_is_named_with_a_remedy(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(LakeError, match=r"not writable.*ATELIER_LAKE"):
        Lake(str(blocked / "lake")).check_writable()


def test_a_missing_file_is_named(lake):
    with pytest.raises(LakeError, match=r"image_set/x\.json is missing"):
        lake.read_json("image_set/x.json")


def test_digests_do_not_depend_on_the_order_of_keys():
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


@pytest.mark.parametrize("name", TABLES)
def test_a_parts_columns_are_told_as_its_contract_tells_them(name, tmp_path):
    lake, contract = Lake(str(tmp_path)), TABLES[name]
    path, _ = lake.write_table(name, contract.schema.empty_table(), contract)
    assert lake.columns(path) == {column.name: type_name(column.type) for column in contract.columns}
