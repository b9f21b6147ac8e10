"""The catalogue: what a dataset.yaml may say, errors that help, readers over several sources, example sets, S3."""

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from components.data import scenes
from components.data.catalog import DATASETS, load_dataset, split_of
from components.data.dataset_file import DatasetError
from components.data.storage import Storage

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
NUM_ROWS = 40


def describe(folder: Path, **changes: Any) -> Path:
    """A valid dataset.yaml under ``folder``/pets with changes; a field set to None is left out."""
    content = {
        "name": "pets",
        "description": "Pictures of pets.",
        "license": "MIT",
        "source": {"format": "parquet", "uri": "*.parquet"},
    }
    content = {name: value for name, value in (content | changes).items() if value is not None}
    file = folder / "pets" / "dataset.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(content))
    return file


def write_parquet(file: Path, prefix: str = "") -> None:
    file.parent.mkdir(exist_ok=True)
    rows = range(NUM_ROWS)
    table = {
        "key": [f"{prefix}{i:03d}" for i in rows],
        "png": pa.array([b"PNG"] * NUM_ROWS, pa.binary()),
        "caption": [f"pet {i}" for i in rows],
        "keywords": [["cat", "soft"] if i % 2 else None for i in rows],
        "label": [str(i % 4 == 1) for i in rows],
    }
    pq.write_table(pa.table(table), file)


def write_tar(target: Any, keys: list[str]) -> None:
    with tarfile.open(fileobj=target, mode="w") as tar:
        for key in keys:
            for suffix, content in (("png", b"PNG"), ("json", json.dumps({"caption": f"the pet {key}"}).encode())):
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


# ------------------------------------------------------------------------------------------------- the file's fields
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"licence": "MIT"}, "licence: unknown field; did you mean 'license'? Allowed here: name, description, "),
        ({"license": None}, "license: missing. It says: Licence of pictures"),
        ({"source": {"format": "parquet", "urii": "x"}}, "source.uri: missing"),
        ({"source": {"format": "parquet", "urii": "x"}}, "source.urii: unknown field; did you mean 'uri'?"),
        (
            {"source": {"format": "parquet", "uri": "x", "columns": {"iamge": "png"}}},
            "source.columns.iamge: unknown field; did you mean 'image'? Allowed here: image, caption, key",
        ),
        (
            {"source": {"format": "parqet", "uri": "x"}},
            "source.format: unknown value 'parqet'; did you mean 'parquet'?",
        ),
        (
            {"source": {"format": "zip", "uri": "x"}},
            "source.format: unknown value 'zip'. Allowed: parquet, webdataset, folder, huggingface, scenes",
        ),
        ({"source": {"uri": "x"}}, "source.format: missing. Allowed: parquet, webdataset, folder, huggingface, scenes"),
        (
            {"source": {"format": "scenes", "rows": 10, "rows_per_shard": 5, "noise": "loud"}},
            "source.noise: Input should be 'low', 'web' or 'high'",
        ),
        (
            {"source": {"format": "scenes", "rows": 0, "rows_per_shard": 5}},
            "source.rows: Input should be greater than 0",
        ),
        ({"source": []}, "source: "),
        ({"splits": {"evaluation": 1.5}}, "splits.evaluation: Input should be less than 1"),
        ({"splits": {"evaluaton": 0.1}}, "splits.evaluaton: unknown field; did you mean 'evaluation'?"),
        ({"examples": {"scc": "a.jsonl"}}, "examples.scc: unknown field; did you mean 'ssc'? Allowed here: ssc, dsc"),
        ({"examples": {"ssc": {"columns": ["caption"]}}}, "examples.ssc: give either the path of a .jsonl file or "),
        (
            {"examples": {"ssc": {"columns": ["caption"], "template": "{captoin}"}}},
            "examples.ssc: template uses ['captoin'], but columns is ['caption']",
        ),
        (
            {"examples": {"ssc": {"columns": ["a"], "template": "{a!r}"}}},
            "examples.ssc: template '{a!r}' must hold plain {column} placeholders",
        ),
        ({"name": "cats"}, "name: 'cats' must be the folder's name, 'pets'"),
        (
            {"source": [{"format": "parquet", "uri": "x"}, {"format": "parquet", "uri": "y", "colums": {}}]},
            "source.1.colums: unknown field; did you mean 'columns'?",
        ),
        (
            {"source": [{"format": "parquet", "uri": "x"}, {"format": "parquet", "uri": "y"}]},
            "source: each of several sources needs a name of its own",
        ),
    ],
)
def test_a_mistake_names_the_file_the_field_and_what_is_allowed(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = describe(tmp_path, **changes)
    with pytest.raises(DatasetError) as failure:
        load_dataset("pets", tmp_path)
    assert str(failure.value).startswith(f"{file}: ")
    assert message in str(failure.value)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    describe(tmp_path, licence="MIT", splits={"evaluation": 2}, description=None)
    with pytest.raises(DatasetError) as failure:
        load_dataset("pets", tmp_path)
    assert len(str(failure.value).splitlines()) == 3


@pytest.mark.parametrize("text", ["name: [", "- a\n- b\n", "", "\tname: pets"])
def test_what_is_no_yaml_mapping_is_refused(tmp_path: Path, text: str) -> None:
    file = describe(tmp_path)
    file.write_text(text)
    with pytest.raises(DatasetError, match=r"dataset\.yaml: it"):
        load_dataset("pets", tmp_path)


def test_an_unknown_data_set_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    describe(tmp_path)
    with pytest.raises(DatasetError, match=r"no data set 'pet' in .*; did you mean 'pets'\? Known: pets"):
        load_dataset("pet", tmp_path)
    with pytest.raises(DatasetError, match="no data set"):
        load_dataset("pets/../pets", tmp_path)


# --------------------------------------------------------------------------------------------------------- addresses
def test_an_unset_variable_names_file_field_variable_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = describe(tmp_path, source={"format": "parquet", "uri": "${PETS_URI}/*.parquet"})
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("PETS_URI", raising=False)
        else:
            monkeypatch.setenv("PETS_URI", value)
        with pytest.raises(DatasetError) as failure:
            load_dataset("pets", tmp_path)
        assert f"{file}: source.uri: the environment variable PETS_URI is not set" in str(failure.value)
        assert "export PETS_URI=" in str(failure.value)


def test_variables_are_filled_in_and_relative_ones_start_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe(tmp_path, source={"format": "parquet", "uri": "${PETS_URI}/*.parquet"})
    write_parquet(tmp_path / "data" / "00000.parquet")
    monkeypatch.chdir(tmp_path)
    for value in (str(tmp_path / "data"), "data", f"file://{tmp_path}/data"):
        monkeypatch.setenv("PETS_URI", value)
        shards = load_dataset("pets", tmp_path).reader(32).shards()
        assert shards == [str(tmp_path / "data" / "00000.parquet")]


def test_globs_are_sorted_and_other_paths_start_at_the_data_sets_folder(tmp_path: Path) -> None:
    file = describe(tmp_path)
    for name in ("b", "a", "c"):
        write_parquet(file.parent / f"{name}.parquet")
    assert [Path(uri).name for uri in load_dataset("pets", tmp_path).reader(32).shards()] == [
        "a.parquet",
        "b.parquet",
        "c.parquet",
    ]


@pytest.mark.parametrize(
    ("uri", "cause"),
    [
        ("*.parquet", "the glob matches no file"),
        ("gone.parquet", "there is no such file"),
        (".", "it is a folder"),
        ("nonsense://x/y.parquet", "Protocol not known"),
    ],
)
def test_an_address_that_names_nothing_is_told_with_its_cause(tmp_path: Path, uri: str, cause: str) -> None:
    file = describe(tmp_path, source={"format": "parquet", "uri": uri})
    with pytest.raises(DatasetError) as failure:
        load_dataset("pets", tmp_path).reader(32)
    assert str(failure.value).startswith(f"{file}: source.uri: ")
    assert f"(written as {uri})" in str(failure.value)
    assert cause in str(failure.value)


def test_sources_on_s3_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    write_parquet(tmp_path / "x.parquet")
    pets = Storage(bucket)
    pets.write_bytes("tables/00000.parquet", (tmp_path / "x.parquet").read_bytes())
    archive = io.BytesIO()
    write_tar(archive, ["a", "b"])
    pets.write_bytes("tars/00000.tar", archive.getvalue())
    monkeypatch.setenv("PETS_URI", bucket)
    describe(
        tmp_path,
        source=[
            {"format": "parquet", "name": "tables", "uri": "${PETS_URI}/tables/*.parquet"},
            {"format": "webdataset", "name": "tars", "uri": "${PETS_URI}/tars/*.tar"},
        ],
    )
    reader = load_dataset("pets", tmp_path).reader(32)
    assert reader.shards() == [f"{bucket}/tables/00000.parquet", f"{bucket}/tars/00000.tar"]
    assert [row.key for row in reader.read(0)][:2] == ["tables/000", "tables/001"]
    assert [(row.key, row.image, row.caption) for row in reader.read(1)] == [
        ("tars/a", b"PNG", "the pet a"),
        ("tars/b", b"PNG", "the pet b"),
    ]
    describe(tmp_path, source={"format": "parquet", "uri": "s3://no-such-bucket/*.parquet"})
    with pytest.raises(DatasetError, match=r"source\.uri: s3://no-such-bucket"):
        load_dataset("pets", tmp_path).reader(32)


# ----------------------------------------------------------------------------------------------------------- readers
def test_several_sources_are_one_with_unique_keys(tmp_path: Path) -> None:
    sources = [
        {"format": "parquet", "name": "left", "uri": "left/*.parquet"},
        {"format": "scenes", "name": "drawn", "rows": 6, "rows_per_shard": 4},
        {"format": "webdataset", "name": "right", "uri": "*.tar"},
    ]
    folder = describe(tmp_path, source=sources).parent
    write_parquet(folder / "left" / "00000.parquet")
    with (folder / "0.tar").open("wb") as file:
        write_tar(file, ["000", "001"])
    dataset = load_dataset("pets", tmp_path)
    reader = dataset.reader(32)
    assert len(reader.shards()) == 4
    keys = [row.key for shard in range(4) for row in reader.read(shard)]
    assert len(set(keys)) == len(keys) == NUM_ROWS + 6 + 2
    assert {key.partition("/")[0] for key in keys} == {"left", "drawn", "right"}
    assert keys == [row.key for shard in range(4) for row in reader.extras(shard)]
    assert not dataset.has_ground_truth
    with pytest.raises(IndexError, match="no shard 4"):
        reader.read(4)


def test_readers_take_no_more_than_they_are_told(tmp_path: Path) -> None:
    folder = describe(tmp_path).parent
    for i in range(3):
        write_parquet(folder / f"{i}.parquet", f"{i}-")
    reader = load_dataset("pets", tmp_path).reader(32, max_rows_per_shard=5, max_shards=2)
    assert len(reader.shards()) == 2
    assert [row.key for row in reader.read(1)] == [f"1-{i:03d}" for i in range(5)]
    assert len(list(reader.extras(0))) == 5


def test_data_sets_and_readers_cross_processes(tmp_path: Path) -> None:
    write_parquet(describe(tmp_path).parent / "0.parquet")
    dataset = pickle.loads(pickle.dumps(load_dataset("pets", tmp_path)))
    reader = pickle.loads(pickle.dumps(dataset.reader(32)))
    assert len(list(reader.read(0))) == NUM_ROWS


def test_scenes_have_ground_truth_and_a_seed(tmp_path: Path) -> None:
    describe(tmp_path, source={"format": "scenes", "rows": 10, "rows_per_shard": 4, "seed": 3, "noise": "high"})
    dataset = load_dataset("pets", tmp_path)
    assert dataset.has_ground_truth
    assert dataset.scene_seed == 3
    assert len(dataset.reader(32).shards()) == 3
    write_parquet(describe(tmp_path).parent / "0.parquet")
    dataset = load_dataset("pets", tmp_path)
    assert not dataset.has_ground_truth
    with pytest.raises(ValueError, match="no ground truth"):
        _ = dataset.scene_seed


# ---------------------------------------------------------------------------------------------------------- examples
def test_the_split_is_a_function_of_the_key_alone_and_has_the_asked_size() -> None:
    keys = [f"{i:08d}" for i in range(20_000)]
    share = sum(split_of(key, 0.05) == "evaluation" for key in keys) / len(keys)
    assert 0.045 < share < 0.055
    assert [split_of(key, 0.05) for key in keys[:50]] == [split_of(key, 0.05) for key in keys[:50]]
    assert all(split_of(key, 0.2) == "evaluation" for key in keys if split_of(key, 0.05) == "evaluation")
    assert {split_of(key, 0.0) for key in keys} == {"train"}
    assert split_of("scene-0", 0.5) == "evaluation"  # fixed for good: rows must not change sides between versions


def test_examples_come_from_columns_of_the_train_split(tmp_path: Path) -> None:
    ssc = {"columns": ["caption"], "template": "{caption}"}
    dsc = {"columns": ["caption", "keywords"], "template": "{caption}: {keywords}", "rows": 5}
    folder = describe(tmp_path, splits={"evaluation": 0.3}, examples={"ssc": ssc, "dsc": dsc}).parent
    write_parquet(folder / "0.parquet")
    dataset = load_dataset("pets", tmp_path)
    reader = dataset.reader(32)
    train = [row.key for row in reader.extras(0) if split_of(row.key, 0.3) == "train"]
    assert 0 < len(train) < NUM_ROWS
    assert list(dataset.examples("ssc", reader)) == train
    with_keywords = [key for key in train if int(key) % 2][:5]
    assert dataset.examples("dsc", reader) == {key: f"pet {int(key)}: cat, soft" for key in with_keywords}


def test_examples_take_only_rows_with_the_wanted_values(tmp_path: Path) -> None:
    ssc = {"columns": ["caption"], "template": "{caption}", "where": {"label": True}}
    write_parquet(describe(tmp_path, examples={"ssc": ssc}, splits={"evaluation": 0.0}).parent / "0.parquet")
    dataset = load_dataset("pets", tmp_path)
    assert list(dataset.examples("ssc", dataset.reader(32))) == [f"{i:03d}" for i in range(1, NUM_ROWS, 4)]
    assert dataset.examples("dsc", dataset.reader(32)) == {}


@pytest.mark.parametrize(
    ("changes", "hint"),
    [({"columns": ["captoin"], "template": "{captoin}"}, "'caption'"), ({"where": {"lable": "true"}}, "'label'")],
)
def test_a_column_that_no_row_has_is_an_error_with_a_hint(tmp_path: Path, changes: dict[str, Any], hint: str) -> None:
    ssc = {"columns": ["caption"], "template": "{caption}"} | changes
    write_parquet(describe(tmp_path, examples={"ssc": ssc}).parent / "0.parquet")
    dataset = load_dataset("pets", tmp_path)
    with pytest.raises(DatasetError, match=rf"examples\.ssc: no row .*; did you mean {hint}\? Rows have: key, caption"):
        dataset.examples("ssc", dataset.reader(32))


def test_examples_come_from_a_file(tmp_path: Path) -> None:
    folder = describe(tmp_path, examples={"ssc": "good.jsonl"}, splits={"evaluation": 0.3}).parent
    write_parquet(folder / "0.parquet")
    (folder / "good.jsonl").write_text("".join(f'{{"key": "{i:03d}", "text": " pet {i}"}}\n\n' for i in range(9)))
    dataset = load_dataset("pets", tmp_path)
    train = [f"{i:03d}" for i in range(9) if split_of(f"{i:03d}", 0.3) == "train"]
    assert dataset.examples("ssc", dataset.reader(32)) == {key: f"pet {int(key)}" for key in train}
    before = dataset.example_settings()
    (folder / "good.jsonl").write_text('{"key": "000", "text": "other"}\n')
    assert dataset.example_settings() != before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"key": "b", "txt": "x"}', "line 2: text: Field required"),
        ('{"key": "b", "text": "x", "note": 1}', "line 2: note: Extra inputs"),
        ("{broken", "line 2: it is not JSON"),
        ('{"key": "a", "text": "x"}', "line 2: key: 'a' stands twice"),
        ('{"key": "b", "text": " "}', "line 2: text: it is empty"),
        ("[1]", "line 2: Input should be"),
    ],
)
def test_a_broken_example_names_its_line(tmp_path: Path, line: str, message: str) -> None:
    folder = describe(tmp_path, examples={"ssc": "good.jsonl"}, splits={"evaluation": 0.0}).parent
    write_parquet(folder / "0.parquet")
    (folder / "good.jsonl").write_text(f'{{"key": "a", "text": "one"}}\n{line}\n')
    dataset = load_dataset("pets", tmp_path)
    with pytest.raises(DatasetError) as failure:
        dataset.examples("ssc", dataset.reader(32))
    assert message in str(failure.value)


def test_a_missing_example_file_is_named(tmp_path: Path) -> None:
    write_parquet(describe(tmp_path, examples={"ssc": "gone.jsonl"}).parent / "0.parquet")
    dataset = load_dataset("pets", tmp_path)
    with pytest.raises(DatasetError, match=r"examples\.ssc: .*gone\.jsonl cannot be read"):
        dataset.examples("ssc", dataset.reader(32))


# ------------------------------------------------------------------------------------------------ the project's own
@pytest.mark.parametrize("file", sorted(DATASETS.glob("*/dataset.yaml")), ids=lambda file: file.parent.name)
def test_the_data_sets_of_the_project_are_described_rightly(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOJI_URI", "/somewhere")
    monkeypatch.setenv("NLVR_URI", "s3://somewhere")
    dataset = load_dataset(file.parent.name)
    assert dataset.name == file.parent.name
    assert {kind for kind, settings in dataset.example_settings().items() if settings} == {"ssc", "dsc"}


@pytest.mark.parametrize(
    ("name", "variable", "place", "num_shards", "num_examples"),
    [("emoji", "EMOJI_URI", "emoji_parquet", 4, 500), ("nlvr", "NLVR_URI", "nlvr_webdataset", 1, 300)],
)
def test_real_data_sets_give_readers_and_example_sets(
    name: str, variable: str, place: str, num_shards: int, num_examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (SHARED / place).exists():
        pytest.skip(f"the data set {name} is not at {SHARED / place}")
    monkeypatch.setenv(variable, str(SHARED / place))
    dataset = load_dataset(name)
    reader = dataset.reader(32)
    assert len(reader.shards()) == num_shards
    for kind in ("ssc", "dsc"):
        examples = dataset.examples(kind, reader)
        assert len(examples) == num_examples
        assert all(split_of(key, dataset.evaluation_fraction) == "train" for key in examples)


def test_styles_and_text_of_scenes_are_asked_for_in_the_file(tmp_path: Path) -> None:
    source = {"format": "scenes", "rows": 60, "rows_per_shard": 60, "styles": True, "text": True}
    describe(tmp_path, source=source)
    dataset = load_dataset("pets", tmp_path)
    assert dataset.scene_options == scenes.SceneOptions(style=True, text=True)
    rows = list(dataset.reader(64).read(0))
    truth = [scenes.scene_for(scenes.index_of(row.key), dataset.scene_seed, dataset.scene_options) for row in rows]
    assert [row.extra["dsc"] for row in rows] == [scenes.dsc(scene) for scene in truth]
    said = " ".join(row.extra["dsc"] for row in rows)
    assert "striped" in said
    assert 'text "' in said
    describe(tmp_path, source={**source, "styles": False, "text": False})
    plain = load_dataset("pets", tmp_path)
    assert "striped" not in " ".join(row.extra["dsc"] for row in plain.reader(64).read(0))
    assert plain.source_settings() != dataset.source_settings()
