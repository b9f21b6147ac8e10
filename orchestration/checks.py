"""Asset checks: what must hold before later stages read an asset, derived from its record.

What belongs here: the list of checks and how a record answers them. What does not: measuring (stage functions do that
and store the figures and the verdict with the data, because a blocking check stops only its own run).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from components.data.lake import Record

Answer = tuple[bool, dict[str, Any]]


def _rows_conserved(records: Sequence[Record]) -> Answer:
    lost = {
        str(r.shard): f"read {r.metadata['read']}, kept {r.metadata['kept']}, rejected {r.metadata['rejected']}"
        for r in records
        if r.metadata["read"] != r.metadata["kept"] + r.metadata["rejected"]
    }
    totals = {name: sum(r.metadata[name] for r in records) for name in ("read", "kept", "rejected")}
    return not lost, {**totals, **lost}


def _captions_fit_for_training(records: Sequence[Record]) -> Answer:
    return not any(r.verdict for r in records), {str(r.shard): r.verdict for r in records if r.verdict}


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
MODELS = (
    "evaluation_clip",
    "attribute_judge",
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
    "image_set": [("has_both_splits", "Both the training and the evaluation split hold rows.", _has_both_splits)],
    "recaptioned": [
        ("captions_fit_for_training", "The caption tests found nothing against a shard.", _captions_fit_for_training)
    ],
    "latents": [("has_rows", "Every shard holds latents.", _has_rows)],
    **{asset: [MODEL_CHECK] for asset in MODELS},
    "evaluation_report": [DECODER_CHECK],
}
WARNINGS = (MODEL_CHECK[0], DECODER_CHECK[0])  # a short training may end above its start; a candidate harms nobody


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
