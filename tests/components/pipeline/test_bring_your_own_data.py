"""The README's three layouts, taken from it word for word, and the dry run before a data set goes in."""

import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.catalog import load_dataset
from components.data.dataset_file import DatasetError
from components.data.lake import Lake
from components.data.scene_graph import scene_for
from components.data.scene_rendering import encode_png, render
from components.execution.local_executor import LocalExecutor
from components.pipeline.check_dataset import check_dataset
from components.pipeline.ingest import build_image_set, ingest, shard_names
from components.pipeline.workspace import Workspace
from components.recipes import load_recipe
from components.tracking import open_tracker
from orchestration.cli import main
from tests.command_line import run
from tests.workspaces import scenes_workspace

README = Path(__file__).resolve().parents[3] / "README.md"
NUM_PETS = 24
PICTURES = [encode_png(picture) for picture in render([scene_for(i, seed=3) for i in range(NUM_PETS)], 32)]
PETS = [{"photo_id": f"p{i:03d}", "alt": f"pet {i}", "breed": f"breed {i % 3}"} for i in range(NUM_PETS)]


def layouts() -> list[str]:
    """The YAML blocks below the heading."""
    text = README.read_text(encoding="utf-8").split("### Bring your own data", 1)[1].split("\n### ", 1)[0]
    return re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)


def write_tars(data: Path, card: Path) -> None:
    for shard in range(2):
        with tarfile.open(data / f"{shard:05d}.tar", "w") as tar:
            for i in range(shard, NUM_PETS, 2):
                fields = {"caption": PETS[i]["alt"], "breed": PETS[i]["breed"]}
                for suffix, content in (("jpg", PICTURES[i]), ("json", json.dumps(fields).encode())):
                    info = tarfile.TarInfo(f"{i:04d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def write_tables(data: Path, card: Path) -> None:
    (data / "photos").mkdir()
    for i, pet in enumerate(PETS):
        (data / "photos" / f"{pet['photo_id']}.png").write_bytes(PICTURES[i])
    for shard in range(2):
        rows = PETS[shard::2]
        table = pa.Table.from_pylist([{**row, "photo": f"{row['photo_id']}.png"} for row in rows])
        pq.write_table(table, data / f"{shard}.parquet")


def write_folder(data: Path, card: Path) -> None:
    for i, pet in enumerate(PETS):
        place = data / ("cats" if i % 2 else "dogs") / f"{pet['photo_id']}.png"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(PICTURES[i])
        place.with_suffix(".txt").write_text(pet["alt"])
    keys = [f"{'cats' if i % 2 else 'dogs'}/{pet['photo_id']}" for i, pet in enumerate(PETS)]
    for name in ("good_short", "good_long"):
        lines = [json.dumps({"key": key, "text": f"a {name} text"}) for key in keys]
        (card / f"{name}.jsonl").write_text("\n".join(lines))


WRITERS: list[Callable[[Path, Path], None]] = [write_tars, write_tables, write_folder]


def describe(tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The folder of the data and that of the card."""
    data, card = tmp_path / "data", tmp_path / "datasets" / "pets"
    data.mkdir()
    card.mkdir(parents=True)
    (card / "dataset.yaml").write_text(content)
    monkeypatch.setenv("PETS_URI", str(data))
    return data, card


def test_the_readme_shows_three_layouts() -> None:
    assert len(layouts()) == len(WRITERS)


@pytest.mark.parametrize("number", range(3), ids=["webdataset", "parquet", "folder"])
def test_a_layout_of_the_readme_goes_in_whole(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, card = describe(tmp_path, layouts()[number], monkeypatch)
    WRITERS[number](data, card)
    dataset = load_dataset("pets", tmp_path / "datasets")
    recipe = load_recipe("smoke")
    report = check_dataset(dataset, recipe)
    assert report.is_good
    assert (report.read, report.kept) == (NUM_PETS, NUM_PETS)
    assert list(report.lines())[-1] == "  Ready: make ingest DATASET=pets"
    ws = Workspace(
        dataset=dataset,
        recipe=recipe,
        lake=Lake(str(tmp_path / "lake")),
        executor=LocalExecutor(),
        tracker=open_tracker(f"local:{tmp_path / 'tracker'}"),
        scratch=tmp_path / "scratch",
    )
    assert all(result.outcome for result in ingest(ws, shard_names(ws)))
    record = build_image_set(ws).record
    assert (record.num_rows, record.metadata["rejected"]) == (NUM_PETS, 0)
    assert record.metadata["ssc_examples"] == record.metadata["dsc_examples"] == record.metadata["train"] > 0


BROKEN = """\
name: pets
description: Half of it is broken.
license: CC0-1.0
source: {format: parquet, uri: "${PETS_URI}/*.parquet"}
"""


def write_broken(data: Path) -> None:
    images = [PICTURES[i] if i < 6 else PICTURES[i][:50] for i in range(10)]
    captions = ["\x1b[2Jclear", *(f"pet {i}" for i in range(9))]
    keys = [f"k{i}" for i in range(10)]
    pq.write_table(pa.table({"key": keys, "png": images, "caption": captions}), data / "0.parquet")
    pq.write_table(pa.table({"key": keys[:1], "png": PICTURES[7:8], "caption": ["again"]}), data / "1.parquet")
    (data / "2.parquet").write_bytes(b"no parquet")


def test_the_dry_run_says_what_is_wrong_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = describe(tmp_path, BROKEN, monkeypatch)
    write_broken(data)
    before = sorted(tmp_path.rglob("*"))
    report = check_dataset(load_dataset("pets", tmp_path / "datasets"), load_recipe("tiny"))
    assert (report.read, report.kept, report.is_good) == (11, 6, False)
    assert report.reasons == {"truncated": 4, "duplicate_key": 1}
    text = "\n".join(report.lines())
    for part in ("kept 6, rejected 5", "truncated: 4 (36.4%)", "0.parquet#6", "lost: ", "2.parquet cannot be read"):
        assert part in text
    assert "-> keys repeat: name another source.columns.key" in text
    assert "\x1b" not in text
    assert sorted(tmp_path.rglob("*")) == before


def test_a_data_set_of_which_nothing_is_kept_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = describe(tmp_path, BROKEN, monkeypatch)
    pq.write_table(pa.table({"key": ["a", "b"], "png": [b"no", b"picture"], "caption": ["x", "y"]}), data / "0.parquet")
    dataset, recipe = load_dataset("pets", tmp_path / "datasets"), load_recipe("tiny")
    report = check_dataset(dataset, recipe)
    assert (report.read, report.kept, report.is_good) == (2, 0, False)
    assert list(report.lines())[-1] == "  Nothing would be kept: mend what stands above before you go on."
    ws = scenes_workspace(tmp_path, {}, dataset=dataset)
    assert all(result.outcome for result in ingest(ws, shard_names(ws)))
    assert build_image_set(ws).record.num_rows == 0


def test_the_dry_run_takes_no_option_that_does_nothing(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["check-dataset", "pets", "--force"])
    assert "unrecognized arguments: --force" in capsys.readouterr().err


def test_the_dry_run_reads_no_more_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = describe(tmp_path, BROKEN, monkeypatch)
    write_broken(data)
    (data / "2.parquet").unlink()
    report = check_dataset(load_dataset("pets", tmp_path / "datasets"), load_recipe("tiny"), num_rows=4)
    assert (report.read, report.num_looked_into) == (3, 2)


def test_a_source_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    describe(tmp_path, BROKEN, monkeypatch)
    with pytest.raises(DatasetError, match="the glob matches no file"):
        check_dataset(load_dataset("pets", tmp_path / "datasets"), load_recipe("tiny"))


def test_the_command_prints_the_report(tmp_path: Path) -> None:
    done = run(["check-dataset", "scenes", "--rows", "24"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "scenes: 24 rows of 8 of 8 shards" in done.stdout
    assert "Ready: make ingest DATASET=scenes" in done.stdout
    assert not list(tmp_path.iterdir())
