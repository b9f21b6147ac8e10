"""Folders of pictures: sidecars, metadata files, COCO; shards that stay as they are when pictures are added."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.contracts import SourceRow
from components.data.folder_reader import FolderReader, open_folder
from components.data.sources import UnreadableShard


def png(colour: str = "red") -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(sink, "PNG")
    return sink.getvalue()


def write(folder: Path, files: Mapping[str, bytes | str]) -> str:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(folder)


def opened(uri: str, rows_per_shard: int = 1000, file: str | None = None, caption: str | None = None) -> FolderReader:
    return open_folder(uri, rows_per_shard, file, caption, "first")


def rows_of(reader: FolderReader) -> list[SourceRow]:
    return [row for shard in range(len(reader.shards())) for row in reader.read(shard)]


def told(rows: Sequence[SourceRow]) -> dict[str, Any]:
    return {row.key: row.problem[0] if row.problem else row.caption for row in rows}


def test_sidecars_describe_the_picture_beside_them(tmp_path: Path) -> None:
    files = {
        "cats/a.PNG": png(),
        "cats/a.txt": "a cat",
        "b.jpg": b"JPG",
        "b.json": '{"caption": "a dog", "license": "MIT", "n": 1}',
        "c.webp": b"WEBP",
        "IMG.2020.01.png": png(),
        "IMG.2020.01.txt": "dots in a name",
        "d.txt": "no picture",
        ".hidden.png": png(),
        ".git/x.png": png(),
        "notes.md": "no caption",
    }
    rows = rows_of(opened(write(tmp_path, files)))
    assert told(rows) == {
        "IMG.2020.01": "dots in a name",
        "b": "a dog",
        "c": None,
        "cats/a": "a cat",
        "d": "no_image",
    }
    by_key = {row.key: row for row in rows}
    assert by_key["cats/a"].image == png()
    assert by_key["b"].license == "MIT"
    assert by_key["b"].extra["n"] == 1
    assert by_key["cats/a"].source == f"{tmp_path}#cats/a.PNG"


def test_two_pictures_of_one_name_are_one_row_and_one_duplicate(tmp_path: Path) -> None:
    rows = rows_of(opened(write(tmp_path, {"a.jpg": b"J", "a.png": png(), "a.txt": "one"})))
    assert told(rows) == {"a": "one", "a.png": "duplicate_key"}


@pytest.mark.parametrize("form", ["metadata.jsonl", "metadata.csv"])
def test_metadata_describes_the_pictures_below_it(form: str, tmp_path: Path) -> None:
    lines = {
        "metadata.jsonl": '{"file_name": "x/1.png", "text": "one, with\\nlines", "n": 1}\n{"file_name": "2.png"}\n\n',
        "metadata.csv": '\ufefffile_name,text,n\nx/1.png,"one, with\nlines",1\n2.png,,\n',
    }
    files = {f"train/{form}": lines[form], "train/x/1.png": png(), "train/2.png": png(), "train/3.png": png()}
    rows = rows_of(opened(write(tmp_path, files | {"train/readme.txt": "about"})))
    captions = {row.key: row.caption or None for row in rows}
    assert captions == {"train/2": None, "train/3": None, "train/x/1": "one, with\nlines"}
    assert not any(row.problem for row in rows)
    assert str({row.key: row for row in rows}["train/x/1"].extra["n"]) == "1"


def test_coco_captions_are_joined_by_image_in_any_order(tmp_path: Path) -> None:
    coco = {
        "info": {"year": 2017},
        "annotations": [
            {"image_id": 7, "caption": "first"},
            {"image_id": 9, "caption": "other"},
            {"image_id": 7, "caption": "the longest of them"},
            {"image_id": 11, "caption": "of nothing"},
            {"image_id": 7},
        ],
        "images": [{"id": 7, "file_name": "7.png"}, {"id": 9, "file_name": "9.png"}, {"id": 10, "file_name": "10.png"}],
    }
    (tmp_path / "captions_train.json").write_text(json.dumps(coco, indent=1))
    uri = write(tmp_path / "train", {"7.png": png(), "9.png": png(), "8.png": png()})
    found = {rule: open_folder(uri, 10, "../captions_train.json", None, rule) for rule in ("first", "longest")}
    rows = told(rows_of(found["first"]))
    assert {key: rows[key] for key in ("7", "8", "9", "10.png")} == {
        "7": "first",
        "8": None,
        "9": "other",
        "10.png": "no_image",
    }
    assert sorted(reason for key, reason in rows.items() if "annotations" in key) == ["bad_metadata"] * 2
    assert told(rows_of(found["longest"]))["7"] == "the longest of them"


def test_a_named_field_holds_the_caption(tmp_path: Path) -> None:
    uri = write(tmp_path, {"metadata.jsonl": '{"file_name": "a.png", "text": "no", "alt": "yes"}', "a.png": png()})
    assert told(rows_of(opened(uri, caption="alt"))) == {"a": "yes"}


def test_remote_folders_are_read_in_order(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    for i in range(30):
        fs.pipe_file(f"/pets/{i:02d}.png", png() + bytes([i]))
        fs.pipe_file(f"/pets/{i:02d}.txt", f"pet {i}".encode())
    rows = rows_of(opened("memory://pets"))
    assert [row.image for row in rows] == [png() + bytes([i]) for i in range(30)]
    assert [row.caption for row in rows] == [f"pet {i}" for i in range(30)]
    fs.rm("/pets", recursive=True)


def test_a_picture_that_is_added_changes_one_shard(tmp_path: Path) -> None:
    uri = write(tmp_path, {f"{i}.png": png() for i in range(50)})
    before = opened(uri, rows_per_shard=8)
    assert len(before.shards()) == 8
    states = [before.state(shard) for shard in range(8)]
    write(tmp_path, {"new.png": png("blue")})
    after = opened(uri, rows_per_shard=8)
    assert sum(after.state(shard) != states[shard] for shard in range(8)) == 1
    (tmp_path / "7.png").write_bytes(png("green") + b"longer")
    changed = opened(uri, rows_per_shard=8)
    assert sum(changed.state(shard) != after.state(shard) for shard in range(8)) == 1


def test_a_changed_caption_changes_its_shard(tmp_path: Path) -> None:
    uri = write(tmp_path, {"a.png": png(), "metadata.jsonl": '{"file_name": "a.png", "text": "one"}'})
    before = opened(uri).state(0)
    write(tmp_path, {"metadata.jsonl": '{"file_name": "a.png", "text": "two"}'})
    assert opened(uri).state(0) != before


@given(st.sets(st.text("abcdef/", min_size=1, max_size=6), min_size=1, max_size=40), st.integers(1, 50))
@settings(max_examples=25)
def test_every_picture_is_in_one_shard_and_shards_are_about_as_large_as_asked(names: set[str], size: int) -> None:
    fs = fsspec.filesystem("memory")
    names = {"/".join(filter(None, name.split("/"))) for name in names} - {""}
    for name in names:
        fs.pipe_file(f"/cut/{name}/p.png", b"x")
    try:
        if names:
            reader = opened("memory://cut", rows_per_shard=size)
            keys = [row.key for row in rows_of(reader)]
            assert sorted(keys) == sorted(f"{name}/p" for name in names)
            assert len(names) <= len(reader.shards()) * size
            assert len(reader.shards()) == 1 or len(reader.shards()) * size < 2 * len(names)
    finally:
        fs.rm("/cut", recursive=True) if names else None


def test_extras_are_the_same_rows_without_pictures(tmp_path: Path) -> None:
    reader = opened(write(tmp_path, {"a.png": png(), "a.json": '{"caption": "one", "n": 1}', "b.txt": "lone"}))
    extras = list(reader.extras(0))
    assert [(row.key, row.caption, row.extra) for row in extras] == [
        (row.key, row.caption, row.extra) for row in reader.read(0)
    ]
    assert all(row.image is None for row in extras)


def test_what_is_no_folder_of_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        opened(str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="it holds no picture"):
        opened(str(tmp_path))
    write(tmp_path, {"a.png": png()})
    with pytest.raises(UnreadableShard, match=r"gone\.jsonl"):
        opened(str(tmp_path), file="gone.jsonl")
