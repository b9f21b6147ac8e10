"""Parts written in a stream are those that would have been written whole."""

from pathlib import Path

import pyarrow as pa
import pytest

from components.contracts import SourceRow
from components.data import ingest
from components.data.ingest import IngestConfig, ingest_shard
from components.data.lake import ROWS_PER_GROUP, part_of
from components.data.part_writer import spooled_part
from components.data.scenes import ScenesReader
from components.schemas import RAW_PAIRS, REJECTED


@pytest.mark.parametrize("num_rows", [1, ROWS_PER_GROUP, ROWS_PER_GROUP + 1])
def test_the_bytes_are_those_of_the_whole_table(num_rows: int, tmp_path: Path) -> None:
    result = ingest_shard(ScenesReader(num_rows, num_rows), 0, IngestConfig(), scratch=tmp_path)
    expected, digest = part_of(result.table, RAW_PAIRS)
    with spooled_part(result.row_groups(), RAW_PAIRS, tmp_path) as (file, found):
        assert (file.read_bytes(), found) == (expected, digest)
    assert not list(tmp_path.iterdir())


def test_a_part_of_no_rows_is_that_of_an_empty_table() -> None:
    empty = REJECTED.schema.empty_table()
    for groups in ([], [empty]):
        with spooled_part(groups, REJECTED) as (file, digest):
            assert (file.read_bytes(), digest) == part_of(empty, REJECTED)


def test_groups_of_large_pictures_have_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    result = ingest_shard(ScenesReader(40, 40, resolution=64), 0, IngestConfig())
    largest = max(len(image) for image in result.table["image"].to_pylist())
    monkeypatch.setattr(ingest, "MAX_GROUP_BYTES", 3 * largest)
    groups = list(result.row_groups())
    assert len(groups) >= 5
    assert all(sum(map(len, group["image"].to_pylist())) <= 3 * largest for group in groups)
    assert pa.concat_tables(groups).equals(result.table)
    assert result.head(5).equals(result.table.slice(0, 5))


class EndlessReader:
    """A source whose storage never answers after its first row."""

    def shards(self) -> list[str]:
        return ["endless://0"]

    def state(self, shard: int) -> str:
        return ""

    def read(self, shard: int):
        import threading

        yield SourceRow("a", None, None, "endless://0#0", problem=("no_image", "x"))
        threading.Event().wait()

    def extras(self, shard: int):
        return self.read(shard)


def test_a_storage_that_never_answers_costs_its_shard() -> None:
    from components.data.sources import UnreadableShard

    with pytest.raises(UnreadableShard, match=r"endless://0 .*more than max_shard_seconds 0\.5"):
        ingest_shard(EndlessReader(), 0, IngestConfig(max_shard_seconds=0.5))
