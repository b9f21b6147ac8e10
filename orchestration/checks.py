"""Asset checks: what must hold before later stages read an asset, derived from its record.

What belongs here: the table of checks and how a record answers them. What does not: measuring (stage functions do that
and store the figures and the verdict with the data, because a blocking check stops only its own run).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import dagster as dg

from components.captioning.quality import CAPTION_TESTS
from components.data.lake import Record
from components.pipeline.champions import GOLDEN_TEST
from components.pipeline.report import REAL
from components.schemas import TABLES, type_name

MIN_CONTRAST = 1.0  # of 255: sample pictures that deviate less are one flat colour, or all the same
UNMEASURED = "not measured when this was made"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a check found: whether it holds, one sentence for a person, and the figures behind it."""

    passed: bool
    said: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """One promise of an asset, and how its records answer it; a failure that does not block is a warning.

    What is not even a number is an error in any case.
    """

    name: str
    promise: str
    answer: Callable[[Sequence[Record]], Answer]
    blocks: Literal["always", "if not finite", "never"] = "always"


def _by_shard(wrong: Mapping[str, str], if_none: str, figures: Mapping[str, Any] | None = None) -> Answer:
    """Passed where nothing is wrong with any shard (or asset); else what, by its name."""
    said = if_none if not wrong else f"wrong with {len(wrong)}: {next(iter(wrong))}: {next(iter(wrong.values()))}"
    return Answer(not wrong, said, {**(figures or {}), **wrong})


def _name(record: Record) -> str:
    return str(record.shard or record.asset)


# ------------------------------------------------------------------------------------------------------------- tables
def _has_the_columns(table: str, records: Sequence[Record]) -> Answer:
    expected = {column.name: type_name(column.type) for column in TABLES[table].columns}
    wrong = {}
    for record in records:
        found = record.metadata.get("columns", expected)  # older records do not say
        differences = [
            f"{name} is {found.get(name, 'missing')}, not {expected.get(name, 'in the schema')}"
            for name in expected | found
            if found.get(name) != expected.get(name)
        ]
        if differences:
            wrong[_name(record)] = "; ".join(differences)
    return _by_shard(wrong, f"all {len(expected)} columns have their names and types", {"columns": ", ".join(expected)})


def _rows_conserved(records: Sequence[Record]) -> Answer:
    wrong = {
        _name(r): f"read {r.metadata['read']}, kept {r.metadata['kept']}, rejected {r.metadata['rejected']}"
        for r in records
        if r.metadata["read"] != r.metadata["kept"] + r.metadata["rejected"]
    }
    totals = {name: sum(r.metadata[name] for r in records) for name in ("read", "kept", "rejected")}
    return _by_shard(wrong, "read {read} rows: kept {kept}, rejected {rejected}".format(**totals), totals)


def _as_many_rows_as_pictures(records: Sequence[Record]) -> Answer:
    wrong = {
        _name(r): f"{r.num_rows} rows for {r.metadata['raw_rows']} pictures"
        for r in records
        if r.num_rows != r.metadata.get("raw_rows", r.num_rows)
    }
    rows = sum(r.num_rows or 0 for r in records)
    return _by_shard(wrong, f"{rows} rows, one for each picture", {"rows": rows})


def _has_rows(records: Sequence[Record]) -> Answer:
    wrong = {_name(r): "no rows" for r in records if not r.num_rows}
    return _by_shard(wrong, "every shard holds rows", {"empty_shards": ", ".join(wrong) or "none"})


def _all_finite(records: Sequence[Record]) -> Answer:
    wrong = {_name(r): f"{r.metadata['not_finite']} values" for r in records if r.metadata.get("not_finite")}
    return _by_shard(wrong, "every value is finite")


# ---------------------------------------------------------------------------------------------------------- manifests
def _has_both_splits(records: Sequence[Record]) -> Answer:
    figures = {name: records[0].metadata[name] for name in ("train", "evaluation")}
    said = "{train} rows to learn from, {evaluation} held out".format(**figures)
    return Answer(all(figures.values()), said, figures)


def _splits_are_disjoint(records: Sequence[Record]) -> Answer:
    metadata = records[0].metadata
    counts = {name: metadata[name] for name in ("repeated_keys", "pictures_in_both_splits") if name in metadata}
    if not counts:
        return Answer(True, UNMEASURED)
    named = {name: metadata[name] for name in ("repeated", "in_both_splits") if name in metadata}
    said = "no picture is both learned from and held out, and no key stands twice"
    if any(counts.values()):
        said = "{pictures_in_both_splits} pictures are in both splits, {repeated_keys} keys stand twice".format(
            **counts
        )
    return Answer(not any(counts.values()), said, {**counts, **named})


def _no_model_saw_opted_out_rows(records: Sequence[Record]) -> Answer:
    metadata = records[0].metadata
    seen_by = metadata.get("opted_out_seen_by", [])
    figures = {"opted_out": metadata.get("opted_out", 0), "seen_by": ", ".join(seen_by) or "none"}
    said = f"{len(seen_by)} model versions have seen rows that are opted out now" if seen_by else "no model saw any"
    return Answer(not seen_by, said, figures)


# ----------------------------------------------------------------------------------------------------------- captions
def _nothing_against(test: str, records: Sequence[Record]) -> Answer:
    """What one of the caption tests has against a record, by its shard."""
    found = {_name(r): "; ".join(r.metadata["complaints"][test]) for r in records if test in r.metadata["complaints"]}
    return _by_shard(found, "no complaint about any caption")


def _golden_pictures(records: Sequence[Record]) -> Answer:
    """Which golden pictures failed and which fact it was, also where few enough failed."""
    metadata, found = records[0].metadata, _nothing_against(GOLDEN_TEST, records)
    failures = metadata["golden_failures"]
    figures = {"pictures": metadata["golden_pictures"], "failed": len(failures)}
    said = f"{len(failures)} captions of {metadata['golden_pictures']} golden pictures failed"
    return Answer(found.passed, said, {**found.figures, **figures, **failures})


# ------------------------------------------------------------------------------------------------------------- models
def _loss_is_finite_and_falls(records: Sequence[Record]) -> Answer:
    history = [entry for r in records for entry in r.metadata.get("losses", [])]
    figures: dict[str, Any] = {}
    wrong, fallen = [], []
    for name in sorted({name for _, scalars in history for name in scalars if name.endswith("/loss")}):
        values = [scalars[name] for _, scalars in history if name in scalars]
        first, last = values[0], sum(values[-3:]) / len(values[-3:])
        figures |= {f"{name} first": first, f"{name} last": last}
        is_good = all(math.isfinite(value) for value in values) and (len(values) < 5 or last < first)
        (fallen if is_good else wrong).append(f"{name} from {first:.4g} to {last:.4g}")
    return Answer(not wrong, "; ".join(wrong or fallen) or "nothing was trained", figures)


def _samples_are_not_constant(records: Sequence[Record]) -> Answer:
    names = ("sample_contrast", "sample_variety")
    figures = {name: records[0].metadata[name] for name in names if name in records[0].metadata}
    if not figures:
        return Answer(True, UNMEASURED)
    words = {"sample_contrast": "within a sample picture", "sample_variety": "between them"}
    said = ", ".join(f"by {value:.1f} of 255 {words[name]}" for name, value in figures.items())
    return Answer(min(figures.values()) >= MIN_CONTRAST, f"values deviate {said}", figures)


# ------------------------------------------------------------------------------------------------------------- report
def _upsampled_prompts_look_like_captions(records: Sequence[Record]) -> Answer:
    """Lengths and words of upsampled prompts beside those of the captions that the model was trained on."""
    found = records[0].metadata.get("upsampling")
    if not found:
        return Answer(True, "no prompt was upsampled", {"upsampled_prompts": "none"})
    figures = {name: value["value"] for name, value in found.items() if isinstance(value, dict)}
    complaints = "; ".join(found["complaints"])
    said = complaints or "they are as long as captions and use their words"
    return Answer(not complaints, said, {**figures, "length_gap": found["length_gap"]} | _if_any(complaints))


def _if_any(complaints: str) -> dict[str, str]:
    return {"complaints": complaints} if complaints else {}


def _student_passes_its_gate(records: Sequence[Record]) -> Answer:
    metadata = records[0].metadata
    found = "; ".join(metadata["decoder_shortcomings"])
    figures = {name: value for name, value in metadata["figures"].items() if name.startswith("decoder/")}
    return Answer(not found, found or "it is champion", {"shortcomings": found or "none", **figures})


def _distances_are_plausible(records: Sequence[Record]) -> Answer:
    """Every FID is a distance; no model's pictures are clearly nearer to the held-out ones than real ones are."""
    metadata = records[0].metadata
    if "fid" not in metadata:
        return Answer(True, UNMEASURED)
    measured = {name: value for name, value in metadata.get("figures", {}).items() if name.endswith("/fid")}
    measured |= {name: value for name, (value, *_) in metadata["fid"].items()}
    wrong = {name: value for name, value in measured.items() if not (math.isfinite(value) and value >= 0)}
    if wrong:
        return Answer(False, f"{', '.join(wrong)}: not a distance", wrong)
    real = metadata["fid"].get(REAL)
    models = {name: bounds for name, bounds in metadata["fid"].items() if name != REAL}
    if real is None or not models:
        return Answer(True, f"{len(measured)} distances are finite", measured)
    nearer = [name for name, (_, _, high) in models.items() if high < real[1]]
    said = f"{', '.join(nearer)} lies nearer to held-out pictures than real ones do ({real[0]:.3g}): were they learned?"
    if not nearer:
        best = min(models, key=lambda name: models[name][0])
        said = f"as many real pictures are at {real[0]:.3g}; the nearest model ({best}) is at {models[best][0]:.3g}"
    return Answer(not nearer, said, {name: value for name, (value, *_) in metadata["fid"].items()})


# ---------------------------------------------------------------------------------------------------------- the table
CONSERVED = Check("rows_conserved", "Kept and rejected rows add up to the rows read.", _rows_conserved)
ONE_EACH = Check("rows_conserved", "There is one row for each picture of raw_pairs.", _as_many_rows_as_pictures)
DISJOINT = Check(
    "no_evaluation_row_in_training",
    "No key stands twice, and no picture is in both the training and the evaluation split.",
    _splits_are_disjoint,
)
LOSS = Check(
    "loss_is_finite_and_falls",
    "Every logged loss is finite and the last is below the first.",
    _loss_is_finite_and_falls,
    blocks="if not finite",  # short and distilled trainings may end above their start
)
SAMPLES = Check(
    "samples_are_not_constant",
    "Sample pictures are more than one flat colour, and differ from each other.",
    _samples_are_not_constant,
)
CAPTION_CHECKS = [Check(test, promise, partial(_nothing_against, test)) for test, promise in CAPTION_TESTS.items()]


def _schema(table: str) -> Check:
    return Check("schema", "The columns have the names and types of the contract.", partial(_has_the_columns, table))


CHECKS: dict[str, list[Check]] = {
    "raw_pairs": [CONSERVED, _schema("raw_pairs")],
    "image_set": [
        CONSERVED,
        Check("has_both_splits", "Both the training and the evaluation split hold rows.", _has_both_splits),
        DISJOINT,
        Check(
            "no_model_saw_opted_out_rows",
            "No model version in the lake has seen a row that is opted out now; the rows themselves are left out.",
            _no_model_saw_opted_out_rows,
            blocks="never",  # what older models saw stops no new one
        ),
    ],
    "champion_captioners": [
        *CAPTION_CHECKS,
        Check(
            GOLDEN_TEST, "Captions of golden pictures say what they must and nothing that is false.", _golden_pictures
        ),
    ],
    "recaptioned": [ONE_EACH, _schema("recaptioned"), *CAPTION_CHECKS],
    "training_set": [ONE_EACH, DISJOINT],
    "latents": [
        ONE_EACH,
        _schema("latents"),
        Check("has_rows", "Every shard holds latents.", _has_rows),
        Check("latents_are_finite", "No latent is infinite or not a number.", _all_finite),
    ],
    "evaluation_clip": [LOSS],
    "attribute_judge": [LOSS],
    "second_judge": [LOSS],
    "clip": [LOSS],
    "base_captioner": [LOSS],
    "ssc_captioner": [LOSS],
    "dsc_captioner": [LOSS],
    "vae": [LOSS, SAMPLES],
    "prompt_upsampler": [LOSS],
    "latent_diffusion": [LOSS, SAMPLES],
    "caption_blend_study": [LOSS, SAMPLES],
    "diffusion_decoder": [LOSS, SAMPLES],
    "consistency_decoder": [LOSS, SAMPLES],
    "evaluation_report": [
        Check(
            "distances_are_plausible",
            "Every FID is finite, and no model is clearly nearer to held-out pictures than other real pictures are.",
            _distances_are_plausible,
            blocks="never",
        ),
        Check(
            "consistency_decoder_passes_its_gate",
            "The two-step student is as good as the recipe's decoder_gate asks, so that it became champion.",
            _student_passes_its_gate,
            blocks="never",  # a candidate harms nobody
        ),
        Check(
            "upsampled_prompts_look_like_captions",
            "Upsampled prompts have the lengths and words of the captions that the model was trained on.",
            _upsampled_prompts_look_like_captions,
            blocks="never",  # a report blocks nothing
        ),
    ],
}


def check_specs(asset: str) -> list[dg.AssetCheckSpec]:
    """The checks of an asset."""
    return [
        dg.AssetCheckSpec(check.name, asset=asset, description=check.promise, blocking=check.blocks != "never")
        for check in CHECKS.get(asset, [])
    ]


def check_results(asset: str, records: Sequence[Record]) -> list[dg.AssetCheckResult]:
    """The answers of an asset's records to its checks."""
    return [_result(asset, check, check.answer(records)) for check in CHECKS.get(asset, [])]


def _result(asset: str, check: Check, answer: Answer) -> dg.AssetCheckResult:
    is_hopeless = not all(math.isfinite(value) for value in answer.figures.values() if isinstance(value, float))
    return dg.AssetCheckResult(
        check_name=check.name,
        asset_key=asset,
        passed=answer.passed,
        severity=dg.AssetCheckSeverity.WARN
        if check.blocks != "always" and not is_hopeless
        else dg.AssetCheckSeverity.ERROR,
        description=answer.said,
        metadata=_finite(answer.figures),
    )


def _finite(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures as metadata can hold them: NaN and infinity become words."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }
