"""Copies across shards leave the image set, filters by model set rows aside; every row stays accounted for."""

import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from components.contracts import SourceRow
from components.data.catalog import load_dataset
from components.data.ingest import ClassifierFilter, ClipFilter, IngestConfig
from components.data.lake import Lake
from components.data.sources import UnreadableShard
from components.families.clip.config import ClipConfig
from components.families.clip.model import build_clip
from components.pipeline import row_filters
from components.pipeline.ingest import build_image_set, ingest, shard_names
from components.pipeline.row_filters import filter_versions, load_filters
from components.pipeline.rows import load_rows
from components.pipeline.shards import ShardStage, make_shards
from components.pipeline.splits import split_figures
from components.pipeline.workspace import Made, Workspace
from components.recipes.recipe import MapConfig
from orchestration.checks import check_results
from tests.own_data import own_data, write_rows
from tests.workspaces import scenes_workspace

SPLITS = "splits: {evaluation: 0.3}\n"


def picture(seed: int, format: str = "PNG", side: int = 64, **options: object) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(sink, format, **options)
    return sink.getvalue()


def open_mine(tmp_path: Path, shards: list[dict[str, bytes]], **overrides: str) -> Workspace:
    data = own_data(tmp_path / "datasets", SPLITS)
    for number, rows in enumerate(shards):
        write_rows(data / f"{number}.parquet", rows)
    dataset = load_dataset("mine", tmp_path / "datasets")
    return scenes_workspace(tmp_path, {"data.max_shards": "9", **overrides}, dataset=dataset)


def shards() -> list[dict[str, bytes]]:
    """Four shards of ten pictures; equal and near copies of the first shard's lie in others."""
    rows = [{f"{'bacd'[shard]}{i}": picture(10 * shard + i) for i in range(10)} for shard in range(4)]
    rows[2]["c3"] = rows[0]["b1"]  # equal
    rows[1]["a4"] = rows[0]["b2"]  # equal, and its key is smaller
    rows[3]["d5"] = picture(3, "JPEG", quality=70)  # near to b3
    rows[3]["d6"] = picture(4, side=48)  # near to b4
    rows[3]["b7"] = picture(99)  # a key of the first shard
    return rows


NEAR = {"data.near_duplicates": '{"max_distance": 4}'}


def set_aside(ws: Workspace) -> dict[str, str]:
    record = build_image_set(ws).record
    rejected = ws.lake.read_table(record.metadata["rejected_path"]).to_pylist()
    assert {row["source"].rpartition("#")[0] for row in rejected} <= {
        str(file) for file in (ws.dataset.folder / "data").iterdir()
    }
    return {row["key"]: row["reason"] for row in rejected}


def test_copies_are_set_aside_across_shards_and_counted(tmp_path: Path) -> None:
    ws = open_mine(tmp_path, shards(), **NEAR)
    records = [result.outcome.record for result in ingest(ws, shard_names(ws)) if result.outcome]
    assert [record.num_rows for record in records] == [10, 10, 10, 11]
    assert set_aside(ws) == {
        "c3": "duplicate_image",
        "b2": "duplicate_image",
        "d5": "near_duplicate",
        "d6": "near_duplicate",
        "b7": "duplicate_key",
    }
    record = ws.parent("image_set")
    assert (record.metadata["read"], record.metadata["kept"], record.metadata["rejected"]) == (41, 36, 5)
    assert record.metadata["rejected_across_shards"] == {"duplicate_image": 2, "duplicate_key": 1, "near_duplicate": 2}
    assert all(result.passed for result in check_results("image_set", [record]))
    rows = load_rows(ws)
    keys = [*rows.train.keys, *rows.evaluation.keys]
    assert len(keys) == len(set(keys)) == 36
    assert not {"c3", "b2", "d5", "d6"} & set(keys)
    assert "b7" in keys
    assert (len(rows.train), len(rows.evaluation)) == (record.metadata["train"], record.metadata["evaluation"])


def test_the_order_in_which_shards_ran_does_not_matter(tmp_path: Path) -> None:
    manifests = []
    for number, order in enumerate(([0, 1, 2, 3], [3, 2, 1, 0])):
        ws = replace(open_mine(tmp_path, shards(), **NEAR), lake=Lake(str(tmp_path / f"lake{number}")))
        names = shard_names(ws)
        for run in (order[:2], order[2:]):
            assert all(result.outcome for result in ingest(ws, [names[position] for position in run]))
        manifests.append(build_image_set(ws).record.data_version)
    assert manifests[0] == manifests[1]


def test_a_picture_that_is_held_out_under_another_key_is_not_learned_from(tmp_path: Path) -> None:
    ws = open_mine(tmp_path, [{"a": picture(0)}], **{"data.ingest.duplicate_images": "keep"})
    learned = next(f"l{n}" for n in range(99) if not ws.dataset.is_held_out(f"l{n}"))
    held_out = next(f"h{n}" for n in range(99) if ws.dataset.is_held_out(f"h{n}"))
    other = next(f"o{n}" for n in range(99) if not ws.dataset.is_held_out(f"o{n}"))
    rows = [{learned: picture(1), other: picture(2)}, {held_out: picture(1)}]
    ws = open_mine(tmp_path, rows, **{"data.ingest.duplicate_images": "keep"})
    list(ingest(ws, shard_names(ws)))
    assert set_aside(ws) == {learned: "held_out_image"}
    record = ws.parent("image_set")
    assert (record.metadata["repeated_keys"], record.metadata["pictures_in_both_splits"]) == (0, 0)
    split = load_rows(ws)
    assert (list(split.train.keys), list(split.evaluation.keys)) == ([other], [held_out])
    manifest = ws.read_manifest("image_set")[1]
    paths = [entry["path"] for entry in manifest["shards"]]
    for entry in manifest["shards"]:
        entry["set_aside"] = []
    figures = split_figures(ws, manifest, paths)
    assert figures == {"repeated_keys": 0, "pictures_in_both_splits": 1, "in_both_splits": learned}
    figures = split_figures(ws, {**manifest, "shards": manifest["shards"][:1] * 2}, [paths[0], paths[0]])
    assert figures["repeated_keys"] == 2


def test_rules_are_part_of_what_the_image_set_is_made_of(tmp_path: Path) -> None:
    ws = open_mine(tmp_path, shards())
    list(ingest(ws, shard_names(ws)))
    assert set(set_aside(ws)) == {"c3", "b2", "b7"}
    assert set(set_aside(open_mine(tmp_path, shards(), **NEAR))) == {"c3", "b2", "b7", "d5", "d6"}


def test_a_source_that_changes_while_it_is_read_fails_its_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.data.parquet_reader import ParquetReader

    ws = open_mine(tmp_path, shards()[:2])
    told = iter("1212")
    monkeypatch.setattr(ParquetReader, "state", lambda self, shard: f"{shard}{next(told) if shard else 0}")
    results = list(ingest(ws, shard_names(ws)))
    assert results[0].outcome
    assert "it changed while it was read" in str(results[1].failure)


def test_a_shard_that_fails_leaves_its_time_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.data.parquet_reader import ParquetReader

    ws = open_mine(tmp_path, shards()[:2])
    read = ParquetReader.read

    def slow(self: ParquetReader, shard: int) -> Iterator[SourceRow]:
        if shard == 0:
            time.sleep(1)
            raise UnreadableShard(self.uris[0], "it is broken")
        return read(self, shard)

    monkeypatch.setattr(ParquetReader, "read", slow)
    results = ingest(ws, shard_names(ws))
    assert "it is broken" in str(next(results).failure)
    started = time.perf_counter()
    good = next(results)
    assert good.outcome
    assert good.outcome.record.seconds < time.perf_counter() - started + 1


def test_a_failed_shards_work_is_not_the_next_ones(tmp_path: Path) -> None:
    ws = open_mine(tmp_path, shards()[:2])
    parts = [result.outcome.record for result in ingest(ws, shard_names(ws)) if result.outcome]

    def work(item: Mapping[str, Any]) -> pa.Table:
        if item["shard"] == "00000":
            end = time.process_time() + 1
            while time.process_time() < end:
                pass
            raise ValueError("it is broken")
        return pa.table({"key": []})

    stage = ShardStage(
        asset="latents",
        inputs=lambda part: {"raw_pairs": part.data_version},
        settings=None,
        items=lambda part: [{"shard": part.shard, "num_rows": 1}],
        factory=lambda: work,
        workers=MapConfig(),
        assemble=lambda part, _: Made(part.data_version, part.path),
    )
    broken, good = make_shards(ws, stage, shard_names(ws))
    assert broken.failure == "latents[00000]: ValueError: it is broken"
    assert good.outcome
    assert good.outcome.record.cpu_seconds < 1
    assert parts[1].path == good.outcome.record.path


# --------------------------------------------------------------------------------------------------------- filters
@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small checkpoint whose label ``dark`` is the more likely the darker a picture is."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {"id2label": {0: "light", 1: "dark"}, "label2id": {"light": 0, "dark": 1}}
    model = ViTForImageClassification(ViTConfig(image_size=32, patch_size=16, **shape, **labels)).eval()
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("white", "black")]
    with torch.no_grad():
        states = model.vit(**processor(pictures, return_tensors="pt")).last_hidden_state[:, 0]
        towards_black = states[1] - states[0]
        weight = 20 * towards_black / towards_black.norm() ** 2
        model.classifier.weight.copy_(torch.stack([torch.zeros_like(weight), weight]))
        model.classifier.bias.copy_(torch.stack([torch.zeros(()), -(weight @ (states[0] + states[1])) / 2]))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def flat(colour: str) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(sink, "PNG")
    return sink.getvalue()


@pytest.mark.parametrize(("bounds", "kept"), [({"max_score": 0.5}, ["w"]), ({"min_score": 0.5}, ["b"])])
def test_a_classifier_sets_rows_aside_by_one_label(
    tmp_path: Path, classifier: str, bounds: dict[str, float], kept: list[str]
) -> None:
    config = ClassifierFilter(model=classifier, label="dark", **bounds)
    overrides = {"data.ingest.classifier_filters": f"[{config.model_dump_json()}]"}
    ws = open_mine(tmp_path, [{"b": flat("black"), "w": flat("white")}], **overrides)
    (result,) = ingest(ws, shard_names(ws))
    assert result.outcome, result.failure
    record = result.outcome.record
    assert ws.lake.read_table(record.path, ["key"])["key"].to_pylist() == kept
    (rejected,) = ws.lake.read_table(record.metadata["rejected_path"]).to_pylist()
    assert rejected["reason"] == "filtered"
    assert rejected["detail"].startswith("dark ")
    assert set(record.inputs) == {"source", f"filter {classifier}"}


def test_a_label_that_the_classifier_lacks_is_named_with_those_it_has(classifier: str) -> None:
    config = IngestConfig(classifier_filters=(ClassifierFilter(model=classifier, label="nsfw", max_score=0.5),))
    with pytest.raises(ValueError, match="has no label 'nsfw'; it has dark, light"):
        load_filters(config, "pad")


def test_clip_scores_decide_by_their_bound(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    build_clip(ClipConfig(), ["words", "other words"], 32).save(folder)
    images, captions = [picture(i) for i in range(6)], [f"words {i}" for i in range(6)]
    (judge,) = load_filters(IngestConfig(clip_filter=ClipFilter(model=str(folder), min_score=-101)), "pad")
    assert judge.judge(images, captions) == [None] * 6
    (judge,) = load_filters(IngestConfig(clip_filter=ClipFilter(model=str(folder), min_score=101)), "pad")
    scores = [float(verdict.detail.split(",")[0]) for verdict in judge.judge(images, captions) if verdict]
    assert len(scores) == 6
    middle = sorted(scores)[3]
    (judge,) = load_filters(IngestConfig(clip_filter=ClipFilter(model=str(folder), min_score=middle - 0.006)), "pad")
    verdicts = judge.judge(images, captions)
    assert [verdict is None for verdict in verdicts] == [score >= middle - 0.006 for score in scores]
    assert {verdict.reason for verdict in verdicts if verdict} == {"low_clip_score"}


def test_other_weights_at_the_same_place_are_another_version(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "clip"
    config = IngestConfig(clip_filter=ClipFilter(model=str(folder), min_score=0))
    build_clip(ClipConfig(seed=0), ["words"], 32).save(folder)
    before = filter_versions(config)
    build_clip(ClipConfig(seed=1), ["words"], 32).save(folder)
    assert filter_versions(config) != before
    with monkeypatch.context() as untouched:
        untouched.setattr(row_filters, "folder_digest", lambda _: pytest.fail("the weights are read again"))
        assert filter_versions(config) == filter_versions(config)
    assert filter_versions(IngestConfig()) == {}
