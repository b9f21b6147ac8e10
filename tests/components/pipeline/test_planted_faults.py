"""Captioners with planted faults: the gate promotes none, and past the gate their captions block training."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from components.captioning.quality import CAPTION_TESTS, QualityConfig
from components.pipeline.captions import build_training_set, recaption
from components.pipeline.champions import GateFailed, choose_champions
from components.pipeline.graph import make
from components.pipeline.ingest import shard_names
from components.pipeline.workspace import UnfitParent, Workspace
from components.recipes.recipe import RecaptionConfig
from orchestration.assets.champion_captioners import champion_captioners
from orchestration.assets.recaptioned import recaptioned
from orchestration.checks import check_results
from tests.planted import allow_planted, plant, promote_untested
from tests.workspaces import scenes_workspace

SMALL = {
    "data.max_shards": "4",
    "data.max_rows_per_shard": "125",
    "clip.training.num_steps": "200",
    # Thresholds as every recipe has them, but that of a CLIP which has seen thousands of pictures.
    "recaption": RecaptionConfig(quality=QualityConfig(min_clip_margin=0.5)).model_dump_json(),
}
# behaviour of the planted captioner: (test at the gate, its words), (test of the written captions, its words)
FAULTS = {
    "prefixes": (
        ("captions_are_well_formed", "100.0% of the captions are rejected, 5.0% are allowed (the first: boilerplate)"),
        (
            "captions_are_well_formed",
            "100.0% of the captions are rejected, 5.0% are allowed (the first: dsc boilerplate)",
        ),
    ),
    "loops": (
        ("captions_are_well_formed", "the first: repetition: '"),
        ("captions_are_well_formed", "the first: repetition: '"),
    ),
    "ignores the picture": (
        ("golden_pictures", "golden pictures failed, 10.0% may; the first: picture 0"),
        ("captions_fit_their_pictures", "more than other pictures"),
    ),
    "always says red": (
        ("captions_use_known_words", "the word 'red' stands in 100.0% of the captions"),
        ("captions_use_known_words", "the word 'red' stands in 100.0% of the captions"),
    ),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Rows, manifest and a CLIP that tells pictures apart, made once."""
    folder = tmp_path_factory.mktemp("faults")
    workspace = scenes_workspace(folder, SMALL)
    for asset in ("raw_pairs", "image_set", "clip"):
        make(workspace, asset)
    return folder


@pytest.fixture
def ws(base, tmp_path, monkeypatch) -> Workspace:
    """A copy of the base whose champions tell the truth, with every shard captioned and fit for training."""
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    allow_planted(monkeypatch)
    workspace = scenes_workspace(tmp_path, SMALL)
    for kind in ("ssc", "dsc"):
        plant(workspace, kind, f"{kind}-true")
    choose_champions(workspace)
    make(workspace, "recaptioned")
    assert build_training_set(workspace).record.num_rows == 500
    return workspace


@pytest.mark.parametrize("fault", FAULTS)
def test_the_gate_promotes_no_captioner_with_a_fault(ws, fault):
    test, words = FAULTS[fault][0]
    before = ws.parent("champion_captioners")
    plant(ws, "dsc", "dsc-faulty", fault)
    with pytest.raises(GateFailed) as failed:
        choose_champions(ws)
    candidate = ws.parent("dsc_captioner").registry
    assert str(failed.value).startswith(f"{candidate} stays a candidate, the champions stay as they were")
    assert words in str(failed.value)
    assert ws.parent("champion_captioners") == before
    name, version = str(candidate).rsplit("/", 1)
    assert ws.tracker.by_alias(name, "candidate").version == version
    assert ws.tracker.by_alias(name, "champion").version != version
    blocking = {one.check_name: one for one in check_results("champion_captioners", [failed.value.record])}
    assert not blocking[test].passed
    assert words in blocking[test].metadata["champion_captioners"].value
    golden = blocking["golden_pictures"].metadata
    if fault in ("ignores the picture", "always says red"):
        said = next(value.value for name, value in golden.items() if name.startswith("dsc 0"))
        assert "which is false" in said or "does not say" in said


@pytest.mark.parametrize("fault", FAULTS)
def test_past_the_gate_its_captions_block_training(ws, fault):
    test, words = FAULTS[fault][1]
    promote_untested(ws, "dsc", "dsc-faulty", fault)
    results = list(recaption(ws, shard_names(ws)))
    records = [result.outcome.record for result in results if result.outcome]
    assert len(records) == 4
    answers = {one.check_name: one for one in check_results("recaptioned", records)}
    assert not answers[test].passed
    for shard in shard_names(ws):
        assert answers[test].metadata[shard].value.startswith("dsc: ")
    with pytest.raises(UnfitParent, match=r"recaptioned\[00000\] must not be trained on: .*dsc: ") as refused:
        build_training_set(ws)
    assert words in str(refused.value) or words.replace("dsc boilerplate", "boilerplate") in str(refused.value)


def materialized(ws: Workspace, asset: dg.AssetsDefinition, partition: str | None = None) -> dg.ExecuteInProcessResult:
    """A run of one asset's Dagster step on this workspace."""
    opened = SimpleNamespace(open=lambda context: ws)
    resources = {"workspace": dg.ResourceDefinition.hardcoded_resource(opened)}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", shard_names(ws))
        return dg.materialize(
            [asset], resources=resources, partition_key=partition, instance=instance, raise_on_error=False
        )


def failed_checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {one.check_name: one for one in result.get_asset_check_evaluations() if not one.passed}


def test_dagster_shows_picture_and_fact_of_a_refused_candidate(ws):
    plant(ws, "dsc", "dsc-faulty", "always says red")
    result = materialized(ws, champion_captioners)
    assert not result.success
    check = failed_checks(result)["golden_pictures"]
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert "golden pictures failed" in str(check.metadata["champion_captioners"].value)
    assert any("does not say '" in str(value.value) for value in check.metadata.values())


def test_dagster_blocks_on_captions_with_a_fault(ws):
    promote_untested(ws, "dsc", "dsc-faulty", "prefixes")
    result = materialized(ws, recaptioned, partition="00001")
    check = failed_checks(result)["captions_are_well_formed"]
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert "dsc: 100.0% of the captions are rejected" in str(check.metadata["00001"].value)
    blocking = {spec.name for spec in recaptioned.check_specs if spec.blocking}
    assert blocking == {*CAPTION_TESTS, "schema", "rows_conserved"}
