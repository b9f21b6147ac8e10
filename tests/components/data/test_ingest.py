"""A shard becomes tables: everything read is either kept or rejected with a reason."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.contracts import SourceRow
from components.data.ingest import IngestConfig, ingest_shard
from components.data.parquet_reader import ParquetReader
from components.data.scenes import ScenesReader
from components.data.sources import UnreadableShard
from components.data.webdataset_reader import WebdatasetReader
from components.schemas import RAW_PAIRS, REJECTED

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


@dataclass(frozen=True)
class ListReader:
    """Rows from a list, as one shard."""

    rows: Sequence[SourceRow]

    def shards(self) -> Sequence[str]:
        return ["list://0"]

    def state(self, shard: int) -> str:
        return ""

    def read(self, shard: int) -> Iterator[SourceRow]:
        yield from self.rows

    def extras(self, shard: int) -> Iterator[SourceRow]:
        yield from self.rows


def png(colour: str = "red") -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(sink, "PNG")
    return sink.getvalue()


def row(key: str, image: bytes | None = None, caption: str | None = "a caption", **fields: object) -> SourceRow:
    image = png() if image is None and "problem" not in fields else image
    return SourceRow(key, image, caption, f"list://0#{key!r}", **fields)  # type: ignore[arg-type]


def test_tables_have_their_schemas_and_are_in_key_order() -> None:
    rows = [row("b", license="MIT"), row("c", png("blue")), row("a", png("green"), "  two\n words ")]
    result = ingest_shard(ListReader(rows), 0, IngestConfig(), "CC0-1.0")
    assert result.table.schema.equals(RAW_PAIRS.schema, check_metadata=True)
    assert result.rejected.schema.equals(REJECTED.schema, check_metadata=True)
    assert result.table["key"].to_pylist() == ["a", "b", "c"]
    assert result.table["caption"].to_pylist() == ["two words", "a caption", "a caption"]
    assert result.table["license"].to_pylist() == ["CC0-1.0", "MIT", "CC0-1.0"]
    assert result.table["width"].to_pylist() == [16] * 3
    assert (result.num_read, result.rejected.num_rows, result.reasons) == (3, 0, {})


def test_every_row_is_kept_or_rejected_with_its_reason() -> None:
    rows = [
        row("good"),
        row("good", png("blue")),
        row("none", problem=("no_image", "status failed")),
        row("cut", png()[:60]),
        row("noise", b"no picture"),
        row("surrogate", png("pink"), "half \ud83d"),
        row("empty-caption", png("gray"), None),
        row("", png("black")),
        row("new\nline", png("white")),
        row("\udcff-from-an-archive", png("brown")),
        row("x" * 600, png("gold")),
        row("copy"),
    ]
    result = ingest_shard(ListReader(rows), 0, IngestConfig())
    assert result.table["key"].to_pylist() == ["copy", "empty-caption"]
    assert result.num_read == len(rows)
    assert result.reasons == {
        "bad_caption": 1,
        "bad_key": 4,
        "duplicate_image": 1,
        "duplicate_key": 1,
        "no_image": 1,
        "truncated": 1,
        "unsupported_format": 1,
    }
    found = {each["key"]: (each["reason"], each["detail"]) for each in result.rejected.to_pylist()}
    assert found["none"] == ("no_image", "status failed")
    assert found["good"][0] in ("duplicate_image", "duplicate_key")
    assert found["\\udcff-from-an-archive"][0] == "bad_key"


@pytest.mark.parametrize(
    ("rule", "kept"), [("keep", ["a", "b", "c", "d"]), ("reject_same_caption", ["a", "c", "d"]), ("reject", ["a", "d"])]
)
def test_equal_pictures_are_kept_by_rule(rule: str, kept: list[str]) -> None:
    rows = [row("c", caption="other words"), row("b"), row("a"), row("d", png("blue"))]
    result = ingest_shard(ListReader(rows), 0, IngestConfig.model_validate({"duplicate_images": rule}))
    assert result.table["key"].to_pylist() == kept
    assert result.num_read == 4


def test_equal_pictures_are_found_though_they_lay_in_the_source_in_different_encodings() -> None:
    sink = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(sink, "BMP")
    tiff = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(tiff, "TIFF")
    rows = [row("a", sink.getvalue()), row("b", tiff.getvalue())]
    result = ingest_shard(ListReader(rows), 0, IngestConfig())
    assert result.reasons == {"duplicate_image": 1}


@given(st.permutations(range(6)))
@settings(max_examples=20)
def test_the_order_of_rows_in_a_source_does_not_matter(order: list[int]) -> None:
    colours = ["red", "blue", "red", "green", "red", "blue"]
    rows = [row(f"{i}", png(colours[i]), "same" if i % 2 == 0 else f"{i}") for i in range(6)]
    rows[3] = row("3", problem=("no_image", "gone"))
    shuffled = ingest_shard(ListReader([rows[i] for i in order]), 0, IngestConfig())
    straight = ingest_shard(ListReader(rows), 0, IngestConfig())
    assert shuffled.table.equals(straight.table)
    assert shuffled.rejected.equals(straight.rejected)


def test_an_empty_shard_gives_empty_tables() -> None:
    result = ingest_shard(ListReader([]), 0, IngestConfig())
    assert (result.num_read, result.table.num_rows, result.rejected.num_rows) == (0, 0, 0)
    assert result.table.schema.equals(RAW_PAIRS.schema)


def test_an_unreadable_shard_is_not_swallowed(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(UnreadableShard):
        ingest_shard(WebdatasetReader([str(tmp_path / "0.tar")]), 0, IngestConfig())


def test_scenes_are_all_kept_as_they_are() -> None:
    reader = ScenesReader(300, 300, seed=1, resolution=32)
    result = ingest_shard(reader, 0, IngestConfig())
    assert (result.table.num_rows, result.reasons) == (300, {})
    assert result.table["sha256"].to_pylist() == result.table["source_sha256"].to_pylist()


def test_one_shard_of_emoji_is_kept_whole_with_transparency_on_white() -> None:
    file = DATA / "emoji_parquet" / "00003.parquet"
    if not file.exists():
        pytest.skip(f"the emoji Parquet files are not at {file.parent}")
    result = ingest_shard(ParquetReader([str(file)]), 0, IngestConfig())
    assert (result.num_read, result.table.num_rows) == (627, 627)
    assert result.table["key"].to_pylist() == sorted(result.table["key"].to_pylist())
    flag = {each["caption"]: each for each in result.table.to_pylist()}["flag: Japan"]
    image = Image.open(io.BytesIO(flag["image"]))
    assert (image.mode, image.size) == ("RGB", (136, 128))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    red, green, blue = image.getpixel((68, 64))  # type: ignore[misc]
    assert red > 150
    assert max(green, blue) < 80


def test_nlvr_is_kept_whole() -> None:
    file = DATA / "nlvr_webdataset" / "00000.tar"
    if not file.exists():
        pytest.skip(f"the nlvr tar is not at {file.parent}")
    result = ingest_shard(WebdatasetReader([str(file)]), 0, IngestConfig(max_side=64))
    assert (result.num_read, result.table.num_rows) == (1000, 1000)
    assert set(result.table["width"].to_pylist()) == {64}
