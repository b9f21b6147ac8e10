"""gc removes what no record names, and nothing else."""

import dataclasses
import time
from pathlib import Path

import pytest

from components.data.lake import Lake
from components.pipeline.captions import build_training_set
from components.pipeline.garbage import UnknownRegistry, find_garbage, remove
from components.pipeline.ingest import build_image_set
from components.pipeline.lineage import Ledger
from components.pipeline.rollback import roll_back
from components.pipeline.rows import load_rows
from components.pipeline.verify import verify
from components.pipeline.workspace import Workspace
from components.tracking import open_tracker
from tests.captioned_lake import captioned_lake, write_captions
from tests.finished_lake import Finished, finished_lake, keep_model
from tests.s3 import FaultyProxy
from tests.writers import AtFileSize, caption_all, contents, start, write_lake

LATER = time.time() + 30 * 3600  # by then everything is older than the guard


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    return finished_lake(tmp_path, rows_per_shard=8)


def garbage_of(ws: Workspace, **options):
    return find_garbage(ws, now=LATER, **options)


def test_a_lake_whose_writers_all_finished_has_no_garbage(finished: Finished) -> None:
    garbage = garbage_of(finished.ws)
    assert (garbage.leftovers, garbage.young, garbage.unknown) == ([], [], [])
    assert garbage.num_kept == len(finished.ws.lake.files())
    assert garbage.kept_bytes == sum(info.num_bytes for info in finished.ws.lake.files().values())


def test_what_killed_writers_leave_goes_and_everything_still_verifies(tmp_path: Path) -> None:
    uri = str(tmp_path / "lake")
    for limit in (40, 5_000, 20_000):
        start(uri, tmp_path / "scratch", die=AtFileSize(limit)).join()
    ws = finished_lake(tmp_path, rows_per_shard=8).ws
    lake, expected = ws.lake, contents(ws.lake)
    lake.write_bytes("raw_pairs/00000/0123456789abcdef.parquet", b"a part whose record never came")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "weights").write_bytes(b"w" * 1000)
    orphan = lake.add_folder("models/vae", tmp_path / "unet")
    lake.write_bytes(".writable-0123", b"")
    lake.write_bytes("notes/of the owner.txt", b"not the lake's")

    garbage = garbage_of(ws)
    whys = {one.path: one.why for one in garbage.leftovers}
    assert whys["raw_pairs/00000/0123456789abcdef.parquet"] == "no record names it"
    assert whys[f"models/vae/{orphan}"] == "no record names it"
    assert [why for path, why in whys.items() if path.endswith(".partial")].count("not finished") >= 3
    assert whys[".writable-0123"] == "not finished"
    assert garbage.unknown == ["notes/of the owner.txt"]

    gone = list(remove(lake, garbage))
    assert {one.path for one in gone} == set(whys)
    after = contents(lake)
    assert {path: data for path, data in after.items() if path in expected} == {
        path: data for path, data in expected.items() if path not in whys
    }
    assert not (Path(lake.root) / "models" / "vae" / orphan).exists()
    assert garbage_of(ws).leftovers == []
    assert all(one.is_equal for one in verify(ws, ("raw_pairs", "image_set", "training_set")))
    assert len(load_rows(ws, with_recaptions=True).train) > 0
    assert Ledger(ws).model("latent_diffusion").missing == []


def test_young_files_are_left_to_their_writers(finished: Finished) -> None:
    ws = finished.ws
    ws.lake.write_bytes("raw_pairs/00000/0123456789abcdef.parquet", b"its record is on its way")
    garbage = find_garbage(ws)
    assert garbage.leftovers == []
    assert [one.path for one in garbage.young] == ["raw_pairs/00000/0123456789abcdef.parquet"]
    assert [one.path for one in find_garbage(ws, min_age_hours=0).leftovers] == [garbage.young[0].path]


def test_what_is_written_again_meanwhile_stays(finished: Finished, tmp_path: Path) -> None:
    lake = finished.ws.lake
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"w")
    version = lake.add_folder("models/vae", tmp_path / "model")
    lake.write_bytes("image_set/0123456789abcdef.json", b"{}")
    garbage = garbage_of(finished.ws)
    assert len(garbage.leftovers) == 2
    time.sleep(0.02)  # a clock tick of the file system
    lake.add_folder("models/vae", tmp_path / "model")
    lake.write_bytes("image_set/0123456789abcdef.json", b"{}")
    assert list(remove(lake, garbage)) == []
    assert lake.exists(f"models/vae/{version}/weights")


def test_an_old_folder_that_is_copied_is_young(finished: Finished, tmp_path: Path) -> None:
    import os

    checkpoint = tmp_path / "hub" / "unet"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(b"w")
    for path in (checkpoint / "weights", checkpoint, checkpoint.parent):
        os.utime(path, (0, 0))
    finished.ws.lake.add_folder("models/vae", checkpoint.parent)
    assert len(find_garbage(finished.ws).young) == 1


def test_superseded_versions_stay_while_a_registered_model_rests_on_them(finished: Finished) -> None:
    ws = finished.ws
    assert garbage_of(ws, superseded=True).leftovers == []  # every model version is registered
    first = finished.made["first_diffusion"]
    for name in ("first_diffusion", "first_text_encoder", "first_upsampler", "first_dsc_captioner"):
        unregister(ws, finished, name)
    names = {one.path for one in garbage_of(ws, superseded=True).leftovers}
    training_set = finished.made["first_training_set"]
    assert {first.path, f"models/latent_diffusion/{first.data_version}.record.json", training_set.path} <= names
    assert any(name.startswith("recaptioned/00000/") for name in names)
    assert not any(name.startswith(("raw_pairs/", "image_set/", "rejected/")) for name in names)
    list(remove(ws.lake, garbage_of(ws, superseded=True)))
    ledger = Ledger(ws)
    assert ledger.model("latent_diffusion").missing == []
    assert [one.data_version for one in ledger.models if one.asset == "latent_diffusion"] == [
        finished.made["second_diffusion"].data_version
    ]
    assert build_image_set(ws).is_reused
    assert build_training_set(ws).is_reused
    assert all(one.is_equal for one in verify(ws, ("raw_pairs", "image_set", "training_set")))


def test_another_registry_is_no_reason_to_remove_anything(finished: Finished, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(finished.ws, tracker=open_tracker(f"local:{tmp_path / 'another'}"))
    with pytest.raises(UnknownRegistry, match=r"does not know scenes-smoke-\w+/\d+, which is in use: set MLFLOW"):
        garbage_of(elsewhere, superseded=True)


def test_champions_stay_while_a_registered_model_read_their_captions(tmp_path: Path) -> None:
    ws = captioned_lake(tmp_path)
    roll_back(ws, "champion_captioners", by="Ada")
    write_captions(ws)
    read = {"training_set": build_training_set(ws).record.data_version}
    keep_model(ws, "latent_diffusion", read, "by the first")
    roll_back(ws, "champion_captioners", "ssc/2,dsc/2", by="Ada")
    write_captions(ws)
    build_training_set(ws)
    first = "champion_captioners/ssc/1,dsc/1.record.json"
    assert first not in {one.path for one in garbage_of(ws, superseded=True).leftovers}
    keep_model(ws, "latent_diffusion", {}, "by nobody")
    (ws.tracker.folder / "models" / ws.registry_name("latent_diffusion") / "1.json").unlink()
    assert first in {one.path for one in garbage_of(ws, superseded=True).leftovers}


def test_vocabularies_of_champions_that_are_gone_go(tmp_path: Path) -> None:
    ws = captioned_lake(tmp_path)
    kept = ws.read_manifest("champion_captioners")[1]["vocabulary"]
    lost = "champion_captioners/fedcba9876543210.vocabulary.txt"
    ws.lake.write_bytes(lost, b"words")
    garbage = garbage_of(ws)
    assert (ws.lake.exists(kept), garbage.unknown) == (True, [])
    assert [(one.path, one.why) for one in garbage.leftovers] == [(lost, "no record names it")]


def test_checkpoints_go_when_their_training_did_not_go_on(finished: Finished) -> None:
    lake, places = (
        finished.ws.lake,
        ("checkpoints/ablation-encoder-fedcba9876543210", "checkpoints/vae-0123456789abcdef"),
    )
    for place in places:
        lake.write_bytes(f"{place}/step-000000010.pt", b"state")
        lake.write_bytes(f"{place}/spent.json", b"{}")
    assert [one.path for one in find_garbage(finished.ws).young] == list(places)  # they may still be at work
    garbage = garbage_of(finished.ws)
    assert [(one.path, one.is_folder) for one in garbage.leftovers] == [(place, True) for place in places]
    assert {one.why for one in garbage.leftovers} == {"of a training that did not go on"}
    assert (garbage.unknown, len(list(remove(lake, garbage)))) == ([], 2)
    assert lake.files("checkpoints") == {}


def test_what_the_lake_does_not_name_that_way_is_not_the_lakes(finished: Finished) -> None:
    paths = [
        "checkpoints/mine/step-000000010.pt",
        "clip/weights.bin",
        "downloads/.film.partial",
        "downloads/film.mp4.partial",
        "downloads/my.partial.folder/film.mp4",
        "image_set.json",
        "latents/mine.parquet",
        "models/mine/config.json",
        "vae/0123456789abcdef.json",
    ]
    for path in paths:
        finished.ws.lake.write_bytes(path, b"somebody's")
    garbage = garbage_of(finished.ws)
    assert (garbage.leftovers, sorted(garbage.unknown)) == ([], paths)


def unregister(ws: Workspace, finished: Finished, name: str) -> None:
    """As if somebody had deleted the version from the registry."""
    model, _, number = str(finished.made[name].registry).rpartition("/")
    (ws.tracker.folder / "models" / model / f"{number}.json").unlink()


def test_the_same_holds_on_s3(bucket: str, s3: FaultyProxy, finished: Finished) -> None:
    ws = dataclasses.replace(finished.ws, lake=Lake(f"{bucket}/lake"), scratch=finished.ws.scratch / "s3")
    write_lake(ws)
    caption_all(ws, "s/2", "d/2")
    keep_model(ws, "vae", {}, "another")
    assert garbage_of(ws).leftovers == []
    ws.lake.write_bytes("models/vae/0123456789abcdef/config.json", b"half a model")
    ws.lake.write_bytes("recaptioned/00000/0123456789abcdef.parquet", b"a part")
    expected = contents(ws.lake)
    assert find_garbage(ws).leftovers == []
    gone = {one.path for one in remove(ws.lake, garbage_of(ws))}
    assert gone == {"models/vae/0123456789abcdef", "recaptioned/00000/0123456789abcdef.parquet"}
    lost = set(expected) - set(contents(ws.lake))
    assert lost == {"models/vae/0123456789abcdef/config.json", "recaptioned/00000/0123456789abcdef.parquet"}
    assert garbage_of(ws).leftovers == []
