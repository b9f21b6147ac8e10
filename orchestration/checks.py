"""Asset checks: what must hold before later stages read an asset, derived from its record.

What belongs here: the list of checks and how a record answers them. What does not: measuring (stage functions do that
and store the figures and the verdict with the data, because a blocking check stops only its own run).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import dagster as dg

from components.captioning.quality import CAPTION_TESTS
from components.data.lake import Record
from components.pipeline.champions import GOLDEN_TEST

Answer = tuple[bool, dict[str, Any]]


def _rows_conserved(records: Sequence[Record]) -> Answer:
    lost = {
        str(r.shard): f"read {r.metadata['read']}, kept {r.metadata['kept']}, rejected {r.metadata['rejected']}"
        for r in records
        if r.metadata["read"] != r.metadata["kept"] + r.metadata["rejected"]
    }
    totals = {name: sum(r.metadata[name] for r in records) for name in ("read", "kept", "rejected")}
    return not lost, {**totals, **lost}


def _nothing_against(test: str, records: Sequence[Record]) -> Answer:
    """What one of the caption tests has against a record, by its shard; the figures behind it where it has none."""
    found = {
        str(r.shard or r.asset): "; ".join(r.metadata["complaints"][test])
        for r in records
        if test in r.metadata["complaints"]
    }
    return not found, found


def _golden_pictures(records: Sequence[Record]) -> Answer:
    """Which golden pictures failed and which fact it was, also where few enough failed."""
    passed, found = _nothing_against(GOLDEN_TEST, records)
    figures = {
        "pictures": records[0].metadata["golden_pictures"],
        "failed": len(records[0].metadata["golden_failures"]),
    }
    return passed, {**found, **figures, **records[0].metadata["golden_failures"]}


def _upsampled_prompts_look_like_captions(records: Sequence[Record]) -> Answer:
    """Lengths and words of upsampled prompts beside those of the captions that the model was trained on."""
    found = records[0].metadata.get("upsampling")
    if not found:
        return True, {"upsampled_prompts": "none"}
    figures = {name: value["value"] for name, value in found.items() if isinstance(value, dict)}
    complaints = {"complaints": "; ".join(found["complaints"])} if found["complaints"] else {}
    return not complaints, {**complaints, **figures, "length_gap": found["length_gap"]}


def _has_rows(records: Sequence[Record]) -> Answer:
    empty = [str(r.shard) for r in records if not r.num_rows]
    return not empty, {"empty_shards": ", ".join(empty) or "none"}


def _loss_is_finite_and_falls(records: Sequence[Record]) -> Answer:
    history = [entry for r in records for entry in r.metadata.get("losses", [])]
    figures: dict[str, Any] = {}
    passed = True
    for name in {name for _, scalars in history for name in scalars if name.endswith("/loss")}:
        values = [scalars[name] for _, scalars in history if name in scalars]
        first, last = values[0], sum(values[-3:]) / len(values[-3:])
        figures |= {f"{name} first": first, f"{name} last": last}
        passed &= all(math.isfinite(value) for value in values) and (len(values) < 5 or last < first)
    return passed, figures


def _has_both_splits(records: Sequence[Record]) -> Answer:
    figures = {name: records[0].metadata[name] for name in ("train", "evaluation")}
    return all(figures.values()), figures


def _no_model_saw_opted_out_rows(records: Sequence[Record]) -> Answer:
    seen_by = records[0].metadata.get("opted_out_seen_by", [])
    figures = {"opted_out": records[0].metadata.get("opted_out", 0), "seen_by": ", ".join(seen_by) or "none"}
    return not seen_by, figures


def _student_passes_its_gate(records: Sequence[Record]) -> Answer:
    metadata = records[0].metadata
    found = metadata["decoder_shortcomings"]
    return not found, {
        "shortcomings": "; ".join(found) or "none",
        **{name: value for name, value in metadata["figures"].items() if name.startswith("decoder/")},
    }


Check = tuple[str, str, Callable[[Sequence[Record]], Answer]]  # name, what it says, how a record answers it
MODEL_CHECK: Check = (
    "loss_is_finite_and_falls",
    "Every logged loss is finite and the last is below the first.",
    _loss_is_finite_and_falls,
)
DECODER_CHECK: Check = (
    "consistency_decoder_passes_its_gate",
    "The two-step student is as good as the recipe's decoder_gate asks, so that it became champion.",
    _student_passes_its_gate,
)
CAPTION_CHECKS: list[Check] = [
    (test, description, partial(_nothing_against, test)) for test, description in CAPTION_TESTS.items()
]
WARNINGS = {  # short and distilled trainings may end above their start; a report blocks nothing
    MODEL_CHECK[0],
    DECODER_CHECK[0],  # a candidate harms nobody
    "no_model_saw_opted_out_rows",  # what older models saw stops no new one
    "upsampled_prompts_look_like_captions",
}
MODELS = (
    "evaluation_clip",
    "attribute_judge",
    "second_judge",
    "clip",
    "base_captioner",
    "ssc_captioner",
    "dsc_captioner",
    "vae",
    "prompt_upsampler",
    "latent_diffusion",
    "caption_blend_study",
    "diffusion_decoder",
    "consistency_decoder",
)
CHECKS: dict[str, list[Check]] = {
    "raw_pairs": [("rows_conserved", "Kept and rejected rows add up to the rows read.", _rows_conserved)],
    "image_set": [
        ("rows_conserved", "Kept and rejected rows add up to the rows read.", _rows_conserved),
        ("has_both_splits", "Both the training and the evaluation split hold rows.", _has_both_splits),
        (
            "no_model_saw_opted_out_rows",
            "No model version in the lake has seen a row that is opted out now; the rows themselves are left out.",
            _no_model_saw_opted_out_rows,
        ),
    ],
    "champion_captioners": [
        *CAPTION_CHECKS,
        (GOLDEN_TEST, "Captions of golden pictures say what they must and nothing that is false.", _golden_pictures),
    ],
    "recaptioned": CAPTION_CHECKS,
    "evaluation_report": [
        DECODER_CHECK,
        (
            "upsampled_prompts_look_like_captions",
            "Upsampled prompts have the lengths and words of the captions that the model was trained on.",
            _upsampled_prompts_look_like_captions,
        ),
    ],
    "latents": [("has_rows", "Every shard holds latents.", _has_rows)],
    **{asset: [MODEL_CHECK] for asset in MODELS},
}


def check_specs(asset: str) -> list[dg.AssetCheckSpec]:
    """The blocking checks of an asset."""
    return [
        dg.AssetCheckSpec(name, asset=asset, description=description, blocking=True)
        for name, description, _ in CHECKS.get(asset, [])
    ]


def check_results(asset: str, records: Sequence[Record]) -> list[dg.AssetCheckResult]:
    """The answers of an asset's records to its checks."""
    results = []
    for name, _, answer in CHECKS.get(asset, []):
        passed, figures = answer(records)
        is_hopeless = not all(math.isfinite(value) for value in figures.values() if isinstance(value, float))
        is_warning = name in WARNINGS and not is_hopeless
        severity = dg.AssetCheckSeverity.WARN if is_warning else dg.AssetCheckSeverity.ERROR
        results.append(
            dg.AssetCheckResult(
                check_name=name, asset_key=asset, passed=passed, severity=severity, metadata=_finite(figures)
            )
        )
    return results


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures as metadata can hold them: NaN and infinity become words."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }
