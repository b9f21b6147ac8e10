"""What holds for every reader: rows come back as they were written, damage never raises anything but its own error."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contracts import Reader, SourceRow
from components.data.caption_files import UnreadableCaptions, entries_of
from components.data.folder_reader import open_folder
from components.data.huggingface_reader import HuggingFaceReader
from components.data.parquet_pages import BadPages, footprint_of
from components.data.parquet_reader import ParquetReader
from components.data.sources import UnreadableShard, caption_of
from components.data.table_rows import TableColumns
from components.data.webdataset_reader import WebdatasetReader

PROFILE = settings(max_examples=25)
KEY = st.text("abcdefgh0123_-", min_size=1, max_size=8)
CAPTION = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
PICTURE = st.binary(min_size=1, max_size=60)
ROWS = st.dictionaries(KEY, st.tuples(PICTURE, CAPTION), min_size=1, max_size=8)
Written = dict[str, tuple[bytes, str]]


def as_tar(folder: Path, rows: Written) -> Reader:
    with tarfile.open(folder / "0.tar", "w") as tar:
        for key, (picture, caption) in rows.items():
            fields = json.dumps({"caption": caption}).encode()
            for suffix, content in (("jpg", picture), ("json", fields)):
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return WebdatasetReader([str(folder / "0.tar")])


def as_parquet(folder: Path, rows: Written) -> Reader:
    table = {"key": list(rows), "jpg": [p for p, _ in rows.values()], "caption": [c for _, c in rows.values()]}
    pq.write_table(pa.table(table), folder / "0.parquet", row_group_size=3)
    return ParquetReader([str(folder / "0.parquet")])


def as_arrow(folder: Path, rows: Written) -> Reader:
    images = [{"bytes": picture, "path": None} for picture, _ in rows.values()]
    table = {"image": images, "text": [caption for _, caption in rows.values()], "key": list(rows)}
    Dataset.from_dict(table).save_to_disk(folder / "saved")
    return HuggingFaceReader([str(folder / "saved" / "data-00000-of-00001.arrow")])


def as_named_files(folder: Path, rows: Written) -> Reader:
    (folder / "photos").mkdir()
    for key, (picture, _) in rows.items():
        (folder / "photos" / f"{key}.jpg").write_bytes(picture)
    names = [f"{key}.jpg" for key in rows]
    table = {"key": list(rows), "photo": names, "caption": [caption for _, caption in rows.values()]}
    pq.write_table(pa.table(table), folder / "0.parquet")
    columns = TableColumns(image="photo", images=str(folder / "photos"))
    return ParquetReader([str(folder / "0.parquet")], columns)


def as_folder(folder: Path, rows: Written) -> Reader:
    lines = []
    for key, (picture, caption) in rows.items():
        (folder / f"{key}.jpg").write_bytes(picture)
        lines.append(json.dumps({"file_name": f"{key}.jpg", "text": caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return open_folder(str(folder), 1000, None, None, "first")


WRITERS: list[Callable[[Path, Written], Reader]] = [as_tar, as_parquet, as_arrow, as_named_files, as_folder]
TARGETS = {as_tar: "0.tar", as_parquet: "0.parquet", as_arrow: "saved/data-00000-of-00001.arrow"}


def fresh(folder: Path) -> Path:
    place = folder / str(len(list(folder.iterdir())))
    place.mkdir()
    return place


@pytest.mark.parametrize("write", WRITERS)
@given(rows=ROWS)
@PROFILE
def test_what_was_written_is_read(tmp_path: Path, write: Callable[[Path, Written], Reader], rows: Written) -> None:
    reader = write(fresh(tmp_path), rows)
    found = list(reader.read(0))
    assert not [row.problem for row in found if row.problem]
    assert {row.key: (row.image, row.caption or "") for row in found} == rows
    assert [(row.key, row.caption) for row in reader.extras(0)] == [(row.key, row.caption) for row in found]
    assert reader.state(0) == reader.state(0)


@pytest.mark.parametrize("write", TARGETS)
@given(rows=ROWS, data=st.data())
@PROFILE
def test_damage_gives_rows_or_one_named_error(
    tmp_path: Path, write: Callable[[Path, Written], Reader], rows: Written, data: Any
) -> None:
    folder = fresh(tmp_path)
    reader = write(folder, rows)
    file = folder / TARGETS[write]
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    named = ""
    found: list[SourceRow] = []
    try:
        found = list(reader.read(0))
    except UnreadableShard as error:
        named = error.uri
    assert named in ("", str(file))
    assert all(row.problem or row.image for row in found)


@given(st.binary(max_size=300), st.sampled_from(["a.jsonl", "a.csv", "a.json"]))
@settings(PROFILE, max_examples=100)
def test_no_file_of_captions_raises_anything_but_its_own_error(content: bytes, name: str) -> None:
    try:
        entries = list(entries_of(name, io.BytesIO(content)))
    except UnreadableCaptions:
        return
    assert all((entry.file_name is None) == (entry.problem is not None) for entry in entries)


@given(st.lists(st.tuples(st.text("ab", min_size=1, max_size=3), st.text("x,\"'\n\r", max_size=6)), max_size=6))
@settings(PROFILE, max_examples=60)
def test_json_lines_and_csv_tell_the_same(rows: list[tuple[str, str]]) -> None:
    import csv

    sheet = io.StringIO(newline="")
    csv.writer(sheet).writerows([("file_name", "text"), *rows])
    lines = "\n".join(json.dumps({"file_name": name, "text": text}) for name, text in rows)
    told = [list(entries_of("a.csv", io.BytesIO(sheet.getvalue().encode())))]
    told.append(list(entries_of("a.jsonl", io.BytesIO(lines.encode()))))
    assert [[(entry.file_name, entry.fields.get("text")) for entry in each] for each in told] == [rows, rows]


@given(st.lists(st.none() | st.text(max_size=9), max_size=6), st.text(max_size=5))
@settings(PROFILE, max_examples=80)
def test_of_several_captions_one_is_taken_and_always_the_same(texts: list[str | None], key: str) -> None:
    usable = [text for text in texts if text and not text.isspace()]
    for rule in ("first", "longest", "drawn"):
        taken = caption_of(texts, rule, key)
        assert taken == caption_of(texts, rule, key)
        assert taken in usable if usable else taken is None
    if usable:
        assert caption_of(texts, "first", key) == usable[0]
        assert len(caption_of(texts, "longest", key) or "") == max(map(len, usable))


def test_drawn_captions_are_drawn_evenly() -> None:
    drawn = [caption_of(["a", "b", "c"], "drawn", f"{i:05d}") for i in range(3000)]
    assert all(900 < drawn.count(text) < 1100 for text in "abc")


@given(st.integers(1, 400), st.sampled_from(["NONE", "SNAPPY", "ZSTD"]), st.booleans(), st.sampled_from(["1.0", "2.0"]))
@settings(PROFILE, max_examples=20)
def test_page_headers_tell_what_the_footer_tells(rows: int, codec: str, dictionary: bool, version: str) -> None:
    sink = io.BytesIO()
    pictures = [bytes([i % 7]) * 500 for i in range(rows)]
    table = pa.table({"png": pictures, "words": [["a", "b"]] * rows, "n": range(rows)})
    options: dict[str, Any] = {"data_page_version": version, "data_page_size": 2000, "row_group_size": 150}
    pq.write_table(table, sink, compression=codec, use_dictionary=dictionary, write_statistics=False, **options)
    metadata = pq.ParquetFile(sink).metadata
    footprint = footprint_of(sink, metadata, ["png", "words"])
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    told = sum(group.column(i).total_uncompressed_size for group in groups for i in (0, 1))
    assert 0.5 * told <= footprint.num_bytes <= told  # the footer counts headers too
    assert (footprint.dictionary_bytes > 0) == dictionary
    sink.seek(4)
    sink.write(b"\xff" * 9)
    with pytest.raises(BadPages, match="broken page header"):
        footprint_of(sink, metadata, ["png"])


def test_pictures_that_a_table_names_come_from_remote_storage_in_order() -> None:
    fs = fsspec.filesystem("memory")
    for i in range(40):
        fs.pipe_file(f"/shop/photos/{i}.jpg", bytes([i]) * 9)
    names = [f"memory://shop/photos/{i}.jpg" if i % 2 else f"{i}.jpg" for i in range(41)]
    with fs.open("/shop/0.parquet", "wb") as file:
        pq.write_table(pa.table({"photo": names, "caption": ["x"] * 41}), file)
    columns = TableColumns(image="photo", images="memory://shop/photos")
    rows = list(ParquetReader(["memory://shop/0.parquet"], columns).read(0))
    assert [row.image for row in rows[:40]] == [bytes([i]) * 9 for i in range(40)]
    assert rows[40].problem is not None
    assert rows[40].problem[0] == "no_image"
    fs.rm("/shop", recursive=True)
