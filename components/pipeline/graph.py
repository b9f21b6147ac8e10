"""The graph as plain calls: every asset's stage function by name, in an order in which each finds its parents.

What belongs here: the table and the order. What does not: Dagster's view of them (``orchestration``). Tests, benchmarks
and notebooks make assets this way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from .backfill import RangeEstimate
from .captions import build_training_set, recaption, recaption_stage
from .champions import choose_champions
from .ingest import build_image_set, estimate_ingest, ingest, shard_names
from .latents import encode, encode_stage, extract_text_encoder
from .report import evaluate
from .shards import ShardResult, estimate_shards
from .study import train_demo_arm
from .train import STAGES, train_model
from .workspace import Outcome, Workspace

SHARDED: dict[str, Callable[[Workspace, Sequence[str]], Iterator[ShardResult]]] = {
    "raw_pairs": ingest,
    "recaptioned": recaption,
    "latents": encode,
}
WHOLE: dict[str, Callable[[Workspace], Outcome]] = {
    "image_set": build_image_set,
    "champion_captioners": choose_champions,
    "training_set": build_training_set,
    "text_encoder": extract_text_encoder,
    "caption_blend_study": train_demo_arm,
    "evaluation_report": evaluate,
    **{asset: partial(train_model, asset=asset) for asset in STAGES},
}
RANGES: dict[str, Callable[[Workspace, Sequence[str]], RangeEstimate]] = {
    "raw_pairs": estimate_ingest,
    "recaptioned": lambda ws, shards: estimate_shards(ws, recaption_stage(ws), shards),
    "latents": lambda ws, shards: estimate_shards(ws, encode_stage(ws), shards),
}
ORDER = (
    "raw_pairs",
    "image_set",
    "clip",
    "base_captioner",
    "ssc_captioner",
    "dsc_captioner",
    "champion_captioners",
    "recaptioned",
    "training_set",
    "vae",
    "latents",
    "prompt_upsampler",
    "text_encoder",
    "latent_diffusion",
    "diffusion_decoder",
    "consistency_decoder",
    "evaluation_clip",
    "attribute_judge",
    "second_judge",
    "caption_blend_study",
    "evaluation_report",
)


def estimate_range(ws: Workspace, asset: str) -> RangeEstimate:
    """What the missing and outdated shards of a partitioned asset will take; nothing is made."""
    return RANGES[asset](ws, shard_names(ws))


def make(ws: Workspace, asset: str) -> list[Outcome]:
    """Make (or reuse) one asset, all shards of it where it has shards.

    Raises RuntimeError with the first reason where a shard failed.
    """
    if asset in WHOLE:
        return [WHOLE[asset](ws)]
    results = list(SHARDED[asset](ws, shard_names(ws)))
    failures = [result.failure for result in results if result.failure]
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(results)} shards failed: {failures[0]}")
    return [result.outcome for result in results if result.outcome]
