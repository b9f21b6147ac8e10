"""Every check holds on a good record, fails on a bad one, and says why in a sentence."""

import dataclasses
import math

import dagster as dg
import pytest

from components.data.lake import Record
from components.pipeline.graph import ORDER
from components.pipeline.report import REAL
from components.schemas import TABLES, type_name
from orchestration.checks import CHECKS, check_results, check_specs
from tests.captioned_lake import captioned_lake
from tests.records import record

COLUMNS = {name: {column.name: type_name(column.type) for column in table.columns} for name, table in TABLES.items()}


def answer(asset: str, name: str, *records: Record) -> dg.AssetCheckResult:
    return next(one for one in check_results(asset, list(records)) if one.check_name == name)


def latents(**changes) -> Record:
    return record("latents", **{"columns": COLUMNS["latents"], "raw_rows": 3, "not_finite": 0, **changes})


def splits(**changes) -> Record:
    counts = {"repeated_keys": 0, "pictures_in_both_splits": 0, "read": 5, "kept": 3, "rejected": 2}
    return record("image_set", **{**counts, "train": 2, "evaluation": 1, **changes})


def samples(contrast: float, variety: float) -> Record:
    return record("vae", sample_contrast=contrast, sample_variety=variety)


def report(**fid: list[float]) -> Record:
    measured = {REAL: [20.0, 15.0, 25.0], "dsc-95, short, vae": [30.0, 26.0, 34.0], **fid}
    return record("evaluation_report", decoder_shortcomings=[], figures={}, fid=measured)


WITHOUT_KEY = {name: kind for name, kind in COLUMNS["latents"].items() if name != "key"}
CASES = [
    (
        "schema",
        latents(),
        latents(columns={**WITHOUT_KEY, "sha256": "binary"}),
        "key is missing, not string; sha256 is",
    ),
    ("rows_conserved", latents(), latents(raw_rows=4), "3 rows for 4 pictures"),
    ("latents_are_finite", latents(), latents(not_finite=7), "7 values"),
    ("has_rows", latents(), dataclasses.replace(latents(), num_rows=0), "no rows"),
    ("rows_conserved", splits(), splits(kept=2), "read 5, kept 2, rejected 2"),
    ("has_both_splits", splits(), splits(evaluation=0), "2 rows to learn from, 0 held out"),
    ("no_evaluation_row_in_training", splits(), splits(pictures_in_both_splits=4), "4 pictures are in both splits"),
    ("no_evaluation_row_in_training", splits(), splits(repeated_keys=1), "1 keys stand twice"),
    ("no_model_saw_opted_out_rows", splits(), splits(opted_out_seen_by=["vae/1"]), "1 model versions have seen rows"),
    ("samples_are_not_constant", samples(40.0, 30.0), samples(0.2, 30.0), "by 0.2 of 255 within"),
    ("samples_are_not_constant", samples(40.0, 30.0), samples(40.0, 0.0), "by 0.0 of 255 between"),
    ("distances_are_plausible", report(), report(oracle=[9.0, 8.0, 10.0]), "oracle lies nearer to held-out pictures"),
    ("distances_are_plausible", report(), report(oracle=[math.nan, 0.0, 0.0]), "oracle: not a distance"),
    ("distances_are_plausible", report(), report(oracle=[-1.0, -1.0, -1.0]), "oracle: not a distance"),
]


@pytest.mark.parametrize(("name", "good", "bad", "said"), CASES)
def test_a_check_tells_good_from_bad(name: str, good: Record, bad: Record, said: str) -> None:
    passed, failed = answer(good.asset, name, good), answer(bad.asset, name, bad)
    assert (passed.passed, failed.passed) == (True, False)
    assert said in str(failed.description)
    assert passed.description


def test_of_several_shards_the_bad_ones_are_named() -> None:
    failed = answer("latents", "rows_conserved", latents(), dataclasses.replace(latents(raw_rows=9), shard="00007"))
    assert failed.metadata["00007"].value == "3 rows for 9 pictures"
    assert "00000" not in failed.metadata


def test_what_blocks_and_what_warns() -> None:
    blocking = {(asset, spec.name) for asset in CHECKS for spec in check_specs(asset) if spec.blocking}
    assert ("vae", "loss_is_finite_and_falls") in blocking
    assert ("image_set", "no_evaluation_row_in_training") in blocking
    assert not [name for asset, name in blocking if asset == "evaluation_report"]
    assert answer("vae", "samples_are_not_constant", samples(0, 0)).severity == dg.AssetCheckSeverity.ERROR
    nearer = answer("evaluation_report", "distances_are_plausible", report(oracle=[9.0, 8.0, 10.0]))
    assert nearer.severity == dg.AssetCheckSeverity.WARN


def test_every_stage_is_checked() -> None:
    assert set(ORDER) - set(CHECKS) == {"text_encoder"}  # half of the upsampler, whose training is checked


def test_records_of_older_versions_pass_with_a_word() -> None:
    older = record("vae", losses=[])
    assert answer("vae", "samples_are_not_constant", older).description == "not measured when this was made"
    assert all(one.passed for one in check_results("latents", [record("latents", shape=[4, 8, 8])]))


def test_tables_as_the_stages_leave_them_pass(tmp_path) -> None:
    ws = captioned_lake(tmp_path)
    for asset in ("raw_pairs", "recaptioned"):
        results = check_results(asset, list(ws.lake.records(asset).values()))
        assert [one.check_name for one in results if not one.passed] == []
    columns = ws.parent("raw_pairs", "00000").metadata["columns"]
    assert columns == COLUMNS["raw_pairs"]
    assert all(one.passed for one in check_results("image_set", [ws.parent("image_set")]))
