"""The code location: what every asset says of itself, which jobs there are, what a typo does."""

import dagster as dg
import pytest

from components.data.lake import Record
from components.pipeline.graph import ORDER
from components.pipeline.versions import CODE_VERSIONS
from orchestration.checks import CHECKS, check_results
from orchestration.definitions import build_definitions, defs
from orchestration.jobs import JOBS
from orchestration.partitions import register_shards
from orchestration.present import escaped, markdown_table
from orchestration.resources import RecipeResource
from tests.records import record

SPECS = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_the_location_is_valid():
    dg.Definitions.validate_loadable(build_definitions())


def test_the_graph_has_every_asset_of_the_plain_order():
    assert set(SPECS) == set(ORDER) == set(CODE_VERSIONS)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_asset_introduces_itself(name):
    spec = SPECS[name]
    assert spec.group_name != "default"
    assert spec.kinds
    assert spec.owners
    assert spec.code_version == CODE_VERSIONS[name]
    assert len(spec.description or "") > 30


@pytest.mark.parametrize("name", ["raw_pairs", "recaptioned", "latents"])
def test_tables_show_a_described_column_schema(name):
    schema = SPECS[name].metadata["dagster/column_schema"]
    assert all(column.description for column in schema.columns)


def test_parents_come_before_their_children_in_the_order():
    for name, spec in SPECS.items():
        for dep in spec.deps:
            assert ORDER.index(dep.asset_key.to_user_string()) < ORDER.index(name)


def test_jobs_cover_the_graph_once_and_wait_for_what_they_read():
    owner = {asset: job.name for job in JOBS for asset in job.assets}
    assert sorted(asset for job in JOBS for asset in job.assets) == sorted(SPECS)
    by_name = {job.name: job for job in JOBS}

    def waits_for(name: str) -> set[str]:
        return set(by_name[name].after).union(*(waits_for(other) for other in by_name[name].after))

    for job in JOBS:
        for asset in job.assets:
            for dep in SPECS[asset].deps:
                other = owner[dep.asset_key.to_user_string()]
                assert other == job.name or other in waits_for(job.name), (asset, other)


def test_shards_are_registered_once_and_in_order():
    instance = dg.DagsterInstance.ephemeral()
    assert register_shards(instance, ["00000", "00001"]) == ["00000", "00001"]
    assert register_shards(instance, ["00000", "00001", "00002"]) == ["00002"]
    assert list(instance.get_dynamic_partitions("shards")) == ["00000", "00001", "00002"]


def test_a_recipe_typo_fails_before_any_work():
    with pytest.raises(ValueError, match="did you mean 'smoke'"):
        RecipeResource(recipe="smokey").load()
    with pytest.raises(ValueError, match="vae has no field 'trainings'"):
        RecipeResource(recipe="smoke", overrides={"vae.trainings.seed": "1"}).load()


def test_an_override_reaches_the_recipe():
    recipe = RecipeResource(recipe="smoke", overrides={"vae.training.learning_rate": "1e-5"}).load()
    assert recipe.vae.training.learning_rate == 1e-5


def test_lost_rows_fail_the_check_and_are_named():
    good = record("raw_pairs", read=5, kept=3, rejected=2)
    bad = record("raw_pairs", read=5, kept=3, rejected=1)
    assert check_results("raw_pairs", [good])[0].passed
    result = check_results("raw_pairs", [good, bad])[0]
    assert not result.passed
    assert result.metadata["00000"].value == "read 5, kept 3, rejected 1"


def test_an_infinite_loss_blocks_and_a_rising_one_warns():
    rising = record("vae", losses=[[step, {"vae/loss": float(step)}] for step in range(1, 8)])
    infinite = record("vae", losses=[[1, {"vae/loss": 1.0}], [2, {"vae/loss": float("inf")}]])
    falling = record("vae", losses=[[step, {"vae/loss": 1.0 / step}] for step in range(1, 8)])
    assert check_results("clip", [falling])[0].passed
    (warned,), (blocked,) = check_results("clip", [rising]), check_results("clip", [infinite])
    assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (blocked.passed, blocked.severity) == (False, dg.AssetCheckSeverity.ERROR)


def test_every_check_names_an_asset():
    assert set(CHECKS) <= set(SPECS)


def test_captions_cannot_break_or_script_a_table():
    rows = [{"caption": "a | b <script>alert(1)</script>\n[x](javascript:y) `c`"}]
    table = markdown_table(rows)
    assert "<script>" not in table
    assert table.count("\n") == 2
    assert "\\|" in table.splitlines()[2]
    assert escaped("plain words") == "plain words"


def test_a_student_that_fails_its_gate_is_a_warning_with_its_figures():
    figures = {"decoder/consistency/fid": 0.6, "captions/dsc/exact_match": 1.0}
    failing = record("evaluation_report", decoder_shortcomings=["FID 0.6 is too high"], figures=figures)
    result = gate_check(failing)
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    assert result.metadata["shortcomings"].value == "FID 0.6 is too high"
    assert result.metadata["decoder/consistency/fid"].value == 0.6
    assert "captions/dsc/exact_match" not in result.metadata
    assert gate_check(record("evaluation_report", decoder_shortcomings=[], figures={})).passed


def gate_check(report: Record) -> dg.AssetCheckResult:
    results = check_results("evaluation_report", [report])
    return next(result for result in results if result.check_name == "consistency_decoder_passes_its_gate")
