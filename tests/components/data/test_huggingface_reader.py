"""Folders of ``datasets.save_to_disk``, written by the library itself."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as Pillow

from components.data.huggingface_reader import HuggingFaceReader, arrow_files
from components.data.sources import UnreadableShard
from components.data.table_rows import TableColumns

NUM_ROWS = 30
TEXT = Value("string")
FEATURES = Features({"image": Image(), "text": TEXT, "captions": List(TEXT), "id": Value("int64")})


def png(number: int) -> bytes:
    sink = io.BytesIO()
    Pillow.new("RGB", (16, 16), (number, 0, 0)).save(sink, "PNG")
    return sink.getvalue()


def rows() -> dict[str, list[Any]]:
    return {
        "image": [{"bytes": png(i), "path": None} for i in range(NUM_ROWS)],
        "text": [f"row {i}" if i else None for i in range(NUM_ROWS)],
        "captions": [["short", "the longest one", "x"]] * NUM_ROWS,
        "id": list(range(100, 100 + NUM_ROWS)),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf")
    dataset = Dataset.from_dict(rows(), features=FEATURES)
    dataset.save_to_disk(folder / "one", num_shards=3)
    DatasetDict({"train": dataset, "test": dataset.select(range(4))}).save_to_disk(folder / "many")
    return folder


def test_what_the_library_saved_is_read_whole(saved: Path) -> None:
    reader = HuggingFaceReader(arrow_files(str(saved / "one"), None))
    assert [Path(uri).name for uri in reader.shards()] == [f"data-0000{i}-of-00003.arrow" for i in range(3)]
    found = [row for shard in range(3) for row in reader.read(shard)]
    assert [row.key for row in found] == [str(100 + i) for i in range(NUM_ROWS)]
    assert [row.image for row in found] == [png(i) for i in range(NUM_ROWS)]
    assert [row.caption for row in found] == [None, *(f"row {i}" for i in range(1, NUM_ROWS))]
    assert found[3].extra == {"text": "row 3", "captions": ["short", "the longest one", "x"], "id": 103}
    assert found[-1].source.endswith("data-00002-of-00003.arrow#9")
    assert all(row.image is None for row in reader.extras(0))


def test_splits_are_chosen_by_name(saved: Path) -> None:
    (file,) = arrow_files(str(saved / "many"), "test")
    assert len(list(HuggingFaceReader([file]).read(0))) == 4
    with pytest.raises(ValueError, match=r"has the splits train, test; set source\.split"):
        arrow_files(str(saved / "many"), None)


def test_globs_and_remote_storage_work(saved: Path) -> None:
    assert len(arrow_files(str(saved / "o*"), None)) == 3
    memory = fsspec.filesystem("memory")
    memory.put(str(saved / "one"), "/saved", recursive=True)
    reader = HuggingFaceReader(arrow_files("memory://saved", None))
    assert sum(1 for _ in reader.read(0)) == 10
    memory.rm("/saved", recursive=True)


@pytest.mark.parametrize(("rule", "caption"), [("first", "short"), ("longest", "the longest one")])
def test_of_several_captions_the_rule_takes_one(saved: Path, rule: Any, caption: str) -> None:
    columns = TableColumns(caption="captions", captions=rule)
    reader = HuggingFaceReader(arrow_files(str(saved / "one"), None), columns)
    assert {row.caption for row in reader.read(1)} == {caption}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_data_files": [{"filename": "../../etc/passwd"}]}, "is no Arrow file of that folder"),
        ({"_data_files": [{"filename": "/etc/x.arrow"}]}, "is no Arrow file of that folder"),
        ({"_data_files": "x"}, "names no Arrow file"),
        ({"_data_files": [], "_indices_data_files": [{"filename": "i.arrow"}]}, "flatten_indices"),
        ([], "holds no object"),
    ],
)
def test_a_state_that_leads_elsewhere_is_refused(saved: Path, tmp_path: Path, state: Any, message: str) -> None:
    shutil.copytree(saved / "one", tmp_path / "one")
    (tmp_path / "one" / "state.json").write_text(json.dumps(state))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        arrow_files(str(tmp_path / "one"), None)


def test_a_folder_that_was_not_saved_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="format: parquet"):
        arrow_files(str(tmp_path), None)


def test_a_text_that_is_not_utf8_costs_its_row_alone(saved: Path, tmp_path: Path) -> None:
    file = tmp_path / "0.arrow"
    source = Path(arrow_files(str(saved / "one"), None)[0])
    file.write_bytes(source.read_bytes().replace(b"row 5", b"row\xff5"))
    problems = [row.problem and row.problem[0] for row in HuggingFaceReader([str(file)]).read(0)]
    assert problems == [None] * 5 + ["bad_caption"] + [None] * 4


def test_a_shard_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableShard, match=r"gone\.arrow"):
        list(HuggingFaceReader([str(tmp_path / "gone.arrow")]).read(0))
