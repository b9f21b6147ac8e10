"""Parquet files as img2dataset, Hugging Face and others write them, and broken ones."""

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.parquet_reader import ParquetReader
from components.data.sources import UnreadableShard
from components.data.table_rows import TableColumns

EMOJI = Path(__file__).resolve().parents[4] / "shared" / "data" / "emoji_parquet"


def write(folder: Path, table: pa.Table | dict[str, Any], **options: Any) -> str:
    file = folder / "00000.parquet"
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), file, **options)
    return str(file)


def img2dataset_table() -> dict[str, Any]:
    return {
        "keywords": ["a; b", "c", None],
        "license": ["CC0-1.0", None, "MIT"],
        "caption": ["first", None, "third"],
        "key": ["000000002", "000000000", "000000001"],
        "status": ["success", "success", "failed_to_download"],
        "error_message": [None, None, "HTTP Error 404"],
        "png": pa.array([b"PNG one", b"PNG two", None], pa.binary()),
    }


def test_img2dataset_columns_are_found_without_being_named(tmp_path: Path) -> None:
    uri = write(tmp_path, img2dataset_table())
    first, second, third = ParquetReader([uri]).read(0)
    assert (first.key, first.image, first.caption, first.license) == ("000000002", b"PNG one", "first", "CC0-1.0")
    assert first.source == f"{uri}#0"
    assert first.extra["keywords"] == "a; b"
    assert "png" not in first.extra
    assert (second.image, second.caption, second.license, second.problem) == (b"PNG two", None, None, None)
    assert third.problem == ("no_image", "status failed_to_download: HTTP Error 404")
    assert third.image is None


def test_extras_are_the_same_rows_without_pictures(tmp_path: Path) -> None:
    reader = ParquetReader([write(tmp_path, img2dataset_table())])
    rows, extras = list(reader.read(0)), list(reader.extras(0))
    assert [row.key for row in extras] == [row.key for row in rows]
    assert [row.extra for row in extras] == [row.extra for row in rows]
    assert all(row.image is None for row in extras)


def test_hugging_face_structs_are_read_and_paths_alone_are_not_followed(tmp_path: Path) -> None:
    images = [{"bytes": b"PNG", "path": "a.png"}, {"bytes": None, "path": "/etc/passwd"}, None]
    uri = write(tmp_path, pa.table({"image": images, "text": ["one", "two", "three"]}))
    rows = list(ParquetReader([uri]).read(0))
    assert [row.image for row in rows] == [b"PNG", None, None]
    assert [row.problem and row.problem[0] for row in rows] == [None, "no_image", "no_image"]
    assert rows[1].problem is not None
    assert "/etc/passwd" in rows[1].problem[1]


def test_rows_without_a_key_column_are_named_by_their_place(tmp_path: Path) -> None:
    uri = write(tmp_path, {"jpg": pa.array([b"x", b"y"], pa.large_binary()), "caption": ["one", "two"]})
    assert [row.key for row in ParquetReader(["elsewhere", uri]).read(1)] == ["00001-00000000", "00001-00000001"]


def test_columns_of_other_names_can_be_named(tmp_path: Path) -> None:
    table = {"photo": pa.array([b"x"], pa.binary()), "thumb": pa.array([b"y"], pa.binary()), "alt": ["one"], "no": [7]}
    (row,) = ParquetReader([write(tmp_path, table)], TableColumns(image="photo", caption="alt", key="no")).read(0)
    assert (row.key, row.image, row.caption) == ("7", b"x", "one")
    assert row.extra == {"alt": "one", "no": 7}


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        ({}, "source.columns.image"),
        ({"image": "pohto"}, "no column 'pohto'"),
        ({"image": "alt"}, "not encoded pictures"),
        ({"image": "photo"}, "source.columns.caption"),
    ],
)
def test_columns_that_cannot_be_found_are_named_with_the_remedy(
    tmp_path: Path, names: dict[str, str], remedy: str
) -> None:
    uri = write(tmp_path, {"photo": pa.array([b"x"], pa.binary()), "alt": ["one"]})
    with pytest.raises(UnreadableShard, match=remedy) as failure:
        list(ParquetReader([uri], TableColumns(**names)).read(0))
    assert failure.value.uri == uri


def test_a_caption_that_is_not_utf8_costs_its_row_alone(tmp_path: Path) -> None:
    captions = pa.array([b"good", b"caf\xe9", b"fine"], pa.binary()).view(pa.string())
    keys = pa.array([b"a", b"b", b"\xff"], pa.binary()).view(pa.string())
    uri = write(tmp_path, {"png": pa.array([b"x"] * 3, pa.binary()), "caption": captions, "key": keys})
    rows = list(ParquetReader([uri]).read(0))
    assert [row.problem and row.problem[0] for row in rows] == [None, "bad_caption", "bad_key"]
    assert [row.key for row in rows] == ["a", "b", "00000-00000002"]


def test_a_null_key_is_a_row_with_a_problem(tmp_path: Path) -> None:
    table = {"png": pa.array([b"x", b"y"], pa.binary()), "caption": ["one", "two"], "key": ["a", None]}
    rows = list(ParquetReader([write(tmp_path, table)]).read(0))
    assert [row.problem and row.problem[0] for row in rows] == [None, "bad_key"]


def test_lists_of_captions_and_dictionary_columns_are_read(tmp_path: Path) -> None:
    table = {
        "webp": pa.array([b"x", b"y"], pa.binary()),
        "caption": [["one", "more"], []],
        "license": pa.array(["MIT", "MIT"]).dictionary_encode(),
    }
    rows = list(ParquetReader([write(tmp_path, table)]).read(0))
    assert [row.caption for row in rows] == ["one", None]
    assert [row.license for row in rows] == ["MIT", "MIT"]


def test_large_pictures_are_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    pictures = [bytes([i]) * 3_000_000 for i in range(12)]
    uri = write(tmp_path, {"png": pa.array(pictures, pa.binary()), "caption": ["c"] * 12}, row_group_size=2)
    rows = ParquetReader([uri]).read(0)
    before = pa.total_allocated_bytes()
    assert next(rows).image == pictures[0]
    assert pa.total_allocated_bytes() - before < 30_000_000
    assert [row.image for row in rows] == pictures[1:]


def test_a_truncated_or_damaged_file_raises_and_names_it(tmp_path: Path) -> None:
    uri = write(tmp_path, img2dataset_table())
    whole = Path(uri).read_bytes()
    for broken in (whole[:-100], whole[: len(whole) // 2], b"", b"not parquet at all"):
        Path(uri).write_bytes(broken)
        with pytest.raises(UnreadableShard, match=r"00000\.parquet cannot be read") as failure:
            list(ParquetReader([uri]).read(0))
    assert str(pickle.loads(pickle.dumps(failure.value))) == str(failure.value)  # it crosses processes


def test_a_missing_file_raises_and_names_it(tmp_path: Path) -> None:
    with pytest.raises(UnreadableShard, match="FileNotFoundError"):
        list(ParquetReader([str(tmp_path / "gone.parquet")]).read(0))


def test_the_emoji_files_are_read_whole() -> None:
    files = sorted(map(str, EMOJI.glob("*.parquet")))
    if not files:
        pytest.skip(f"the emoji Parquet files are not at {EMOJI}")
    reader = ParquetReader(files)
    rows = [row for shard in range(len(files)) for row in reader.extras(shard)]
    assert len({row.key for row in rows}) == len(rows) == 3627
    first = next(reader.read(0))
    assert first.image is not None
    assert first.image.startswith(b"\x89PNG")
    assert first.caption
    assert first.extra["keywords"]
