"""Webdataset tars, in order and out of it, hostile and broken."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contracts import SourceRow
from components.data import webdataset_reader
from components.data.sources import UnreadableShard
from components.data.webdataset_reader import WebdatasetReader

NLVR = Path(__file__).resolve().parents[4] / "shared" / "data" / "nlvr_webdataset"

Member = tuple[str, bytes] | tarfile.TarInfo


def tar_bytes(members: Sequence[Member], mode: str = "w", format: int = tarfile.PAX_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode, format=format) as tar:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return sink.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def read(folder: Path, data: bytes, **options: Any) -> list[SourceRow]:
    file = folder / "00000.tar"
    file.write_bytes(data)
    return list(WebdatasetReader([str(file)], **options).read(0))


def problems(rows: Sequence[SourceRow]) -> dict[str, str]:
    return {row.key: row.problem[0] for row in rows if row.problem}


def test_members_with_one_name_are_one_row(tmp_path: Path) -> None:
    fields = {"license": "MIT", "label": "true", "caption": "not this one"}
    data = tar_bytes([("a.png", b"PNG"), ("a.txt", b"one"), ("a.json", json.dumps(fields).encode()), ("a.cls", b"3\n")])
    (row,) = read(tmp_path, data)
    assert (row.key, row.image, row.caption, row.license, row.problem) == ("a", b"PNG", "one", "MIT", None)
    assert row.source == f"{tmp_path / '00000.tar'}#a.png"
    assert row.extra == {**fields, "cls": "3"}


def test_folders_belong_to_the_key_and_suffixes_begin_at_the_first_dot(tmp_path: Path) -> None:
    members = [
        ("./x/0.1.png", b"a"),
        ("./y/0.PNG", b"b"),
        ("./y/0.txt", b"two"),
        ("._0.png", b"junk"),
        ("README", b"c"),
    ]
    rows = read(tmp_path, tar_bytes([special("./x", tarfile.DIRTYPE), *members]))
    assert problems(rows) == {"x/0": "no_image"}
    assert [(row.key, row.image, row.caption) for row in rows if not row.problem] == [("y/0", b"b", "two")]


@given(st.permutations([f"{key}.{suffix}" for key in "abc" for suffix in ("jpg", "txt", "json")]))
@settings(max_examples=20)
def test_the_order_of_members_does_not_matter(names: list[str]) -> None:
    contents = {f"{key}.{suffix}": f"{suffix} of {key}".encode() for key in "abc" for suffix in ("jpg", "txt")}
    contents |= {f"{key}.json": b'{"license": "MIT"}' for key in "abc"}
    with fsspec.open("memory://shuffled.tar", "wb") as file:
        file.write(tar_bytes([(name, contents[name]) for name in names]))
    rows = list(WebdatasetReader(["memory://shuffled.tar"]).read(0))
    found = {row.key: (row.image, row.caption) for row in rows}
    assert found == {key: (f"jpg of {key}".encode(), f"txt of {key}") for key in "abc"}
    assert [row.license for row in rows] == ["MIT"] * 3


def test_well_ordered_archives_are_read_row_by_row_and_scattered_ones_only_within_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset_reader, "MAX_PENDING_BYTES", 2500)
    pictures = [(f"{i}.png", b"x" * 1000) for i in range(9)]
    texts = [(f"{i}.txt", b"y") for i in range(9)]
    in_order = [member for pair in zip(pictures, texts, strict=True) for member in pair]
    assert len(read(tmp_path, tar_bytes(in_order))) == 9
    with pytest.raises(UnreadableShard, match="sort the archive by name"):
        read(tmp_path, tar_bytes([*pictures, *texts]))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_archives_are_read(tmp_path: Path, mode: str) -> None:
    assert [row.image for row in read(tmp_path, tar_bytes([("a.webp", b"W"), ("a.txt", b"one")], mode))] == [b"W"]


def test_what_could_leave_the_archive_is_set_aside_and_nothing_is_written(tmp_path: Path) -> None:
    members = [
        ("../up.png", b"x"),
        ("/abs.png", b"x"),
        ("in/../../out.png", b"x"),
        special("soft.png", tarfile.SYMTYPE, "/etc/passwd"),
        ("soft.txt", b"caption of the link"),
        special("hard.jpg", tarfile.LNKTYPE, "good.png"),
        special("disk.png", tarfile.BLKTYPE),
        special("pipe", tarfile.FIFOTYPE),
        ("good.png", b"PNG"),
    ]
    rows = read(tmp_path, tar_bytes(members))
    unsafe = ["../up", "/abs", "in/../../out", "soft", "hard", "disk", "pipe"]
    assert problems(rows) == dict.fromkeys(unsafe, "unsafe_member")
    assert [row.key for row in rows if row.problem is None] == ["good"]
    assert all(row.image is None for row in rows if row.problem)
    assert [file.name for file in tmp_path.iterdir()] == ["00000.tar"]


def test_each_bad_row_has_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset_reader, "MAX_PICTURE_BYTES", 1000)
    members = [
        ("alone.txt", b"no picture"),
        ("failed.json", b'{"status": "failed_to_download", "error_message": "404"}'),
        ("latin.png", b"x"),
        ("latin.txt", b"caf\xe9"),
        ("json.png", b"x"),
        ("json.json", b"{broken"),
        ("list.png", b"x"),
        ("list.json", b"[1]"),
        ("deep.png", b"x"),
        ("deep.json", b"[" * 900 + b"]" * 90),
        ("huge.png", b"x" * 1001),
        ("twice.png", b"first"),
        ("twice.png", b"second"),
        ("good.jpeg", b"x"),
    ]
    rows = read(tmp_path, tar_bytes(members))
    assert problems(rows) == {
        "alone": "no_image",
        "failed": "no_image",
        "latin": "bad_caption",
        "json": "bad_metadata",
        "list": "bad_metadata",
        "deep": "bad_metadata",
        "huge": "too_many_bytes",
        "twice": "duplicate_key",
    }
    assert {row.key: row.image for row in rows if not row.problem} == {"twice": b"first", "good": b"x"}
    assert next(row.problem[1] for row in rows if row.key == "failed" and row.problem).endswith(
        "failed_to_download: 404"
    )


def test_the_caption_can_be_a_named_field_or_suffix(tmp_path: Path) -> None:
    members = [("a.png", b"x"), ("a.cls", b"cat"), ("a.json", b'{"alt": ["a cat", "x"], "text": "found by name"}')]
    captions = [read(tmp_path, tar_bytes(members), caption=name)[0].caption for name in ("cls", "alt", None)]
    assert captions == ["cat", "a cat", "found by name"]


def test_extras_are_the_same_rows_without_pictures(tmp_path: Path) -> None:
    file = tmp_path / "00000.tar"
    file.write_bytes(tar_bytes([("a.png", b"x"), ("a.json", b'{"n": 1}'), ("b.txt", b"alone")]))
    reader = WebdatasetReader([str(file)])
    rows, extras = list(reader.read(0)), list(reader.extras(0))
    assert [(row.key, row.extra, row.problem) for row in extras] == [(row.key, row.extra, row.problem) for row in rows]
    assert all(row.image is None for row in extras)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_that_is_cut_anywhere_raises_before_its_first_row(tmp_path: Path, format: int) -> None:
    data = tar_bytes([(f"{i}.png", b"x" * 700) for i in range(4)], format=format)
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512  # where the blocks of zeros begin
    for cut in (0, 100, 512, 1024, 1536, 2000, end - 512, end):
        file = tmp_path / "00000.tar"
        file.write_bytes(data[:cut])
        rows = WebdatasetReader([str(file)]).read(0)
        with pytest.raises(UnreadableShard, match=r"00000\.tar cannot be read"):
            next(rows)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_archive_that_is_cut_raises(tmp_path: Path, mode: str) -> None:
    data = tar_bytes([(f"{i}.png", bytes(range(256)) * 40) for i in range(20)], mode)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(UnreadableShard):
            read(tmp_path, data[: int(len(data) * share)])


def test_a_damaged_header_in_the_midst_is_not_taken_for_the_end(tmp_path: Path) -> None:
    data = bytearray(tar_bytes([(f"{i}.png", b"x") for i in range(4)], format=tarfile.USTAR_FORMAT))
    data[2 * 1024 + 20] ^= 0xFF
    with pytest.raises(UnreadableShard, match="damaged"):
        read(tmp_path, bytes(data))


def test_archives_joined_end_to_end_are_not_read_by_half(tmp_path: Path) -> None:
    with pytest.raises(UnreadableShard, match="follow the archive's end"):
        read(tmp_path, tar_bytes([("a.png", b"x")]) + tar_bytes([("b.png", b"x")]))


def test_the_nlvr_tar_is_read_whole() -> None:
    file = NLVR / "00000.tar"
    if not file.exists():
        pytest.skip(f"the nlvr tar is not at {file}")
    rows = list(WebdatasetReader([str(file)]).read(0))
    assert len({row.key for row in rows}) == len(rows) == 1000
    assert problems(rows) == {}
    assert all(row.image and row.image.startswith(b"\x89PNG") and row.caption for row in rows)
    assert {row.license for row in rows} == {"CC-BY-4.0"}
    assert sum(row.extra["label"] == "true" for row in rows) == 552
