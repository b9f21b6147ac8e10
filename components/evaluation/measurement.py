"""From pictures and texts to the report's figures: one call per part of the report.

What belongs here: which metric goes into which field, and leaving out what cannot be measured. What does not: making
the pictures and captions (the pipeline does) and the metrics themselves (one module each).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from components.data.image_statistics import detail_ratios, psnr
from components.data.scene_facts import Facts
from components.data.scene_graph import Scene

from .caption_accuracy import caption_accuracy, distinct_share, mean_words
from .clip_score import clip_scores, retrieval_hits
from .fid import fid, kid, paired_fid
from .figures import (
    CaptionFigures,
    DecoderFigures,
    GeneratedDecoderFigures,
    GenerationFigures,
    JudgeFigures,
    SuiteFigures,
)
from .intervals import Figure, mean, share
from .prompt_following import PromptFollowing, judge_accuracy, prompt_following

Features = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Reference:
    """What generated pictures are compared with: a feature extractor and its features of real held-out pictures.

    ``extract`` maps uint8 (N, H, W, 3) to (N, D); ``features`` is (M, D).
    """

    extract: Features
    features: np.ndarray

    @classmethod
    def of(cls, extract: Features, real_pixels: np.ndarray) -> "Reference":
        """The reference of real pictures, uint8 (M, H, W, 3)."""
        return cls(extract, extract(real_pixels))


@dataclass(frozen=True, slots=True)
class Judges:
    """Who judges; each may be missing, and what only it can tell is then left out of the report.

    ``read``: pictures to scenes (the attribute judge). ``image_embeds``, ``text_embeds``: an evaluation CLIP that no
    training saw. ``reference``: for FID and KID.
    """

    read: Callable[[np.ndarray], Sequence[Scene]] | None = None
    image_embeds: Callable[[np.ndarray], np.ndarray] | None = None
    text_embeds: Callable[[Sequence[str]], np.ndarray] | None = None
    reference: Reference | None = None


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts of one kind as a user wrote them, and what each states where that is known."""

    kind: str  # short or descriptive
    texts: Sequence[str]
    facts: Sequence[Facts] | None = None


def evaluate_judge(judges: Judges, pixels: np.ndarray, truth: Sequence[Scene]) -> JudgeFigures | None:
    """How rightly the attribute judge reads real pictures, uint8 (N, H, W, 3); None without a judge."""
    return JudgeFigures.of(judge_accuracy(truth, judges.read(pixels))) if judges.read else None


def evaluate_agreement(first: Sequence[Scene], second: Sequence[Scene]) -> JudgeFigures:
    """Of what one judge reads in pictures, what another reads in them too; whole scenes have nothing more or less."""
    return JudgeFigures.of(judge_accuracy(first, second))


def evaluate_suite(pixels: np.ndarray, prompts: PromptSet, judges: Judges, *, suite: str) -> SuiteFigures:
    """Pictures uint8 (N, H, W, 3), one per prompt of one category; the kind of ``prompts`` is the category."""
    figures = evaluate_generation(pixels, prompts, replace(judges, reference=None), model=suite, decoder="vae")
    shared = set(SuiteFigures.model_fields) & set(GenerationFigures.model_fields)
    values = {name: getattr(figures, name) for name in shared}
    return SuiteFigures(suite=suite, category=prompts.kind, **values)


def evaluate_captions(
    captions: Sequence[str],
    pixels: np.ndarray,
    judges: Judges,
    *,
    scenes: Sequence[Scene] | None = None,
    expected: Sequence[Facts] | None = None,
    images_per_second: Figure | None = None,
) -> CaptionFigures:
    """Captions of the pictures uint8 (N, H, W, 3).

    ``scenes`` and ``expected`` (what each caption ought to say, see ``caption_accuracy``) where truth is known.
    """
    accuracy = caption_accuracy(captions, scenes, expected) if scenes is not None and expected is not None else None
    clip_score, retrieval_at_1 = _clip_figures(judges, pixels, captions)
    return CaptionFigures(
        attribute_accuracy=accuracy and accuracy.attribute_accuracy,
        exact_match=accuracy and accuracy.exact_match,
        hallucination_rate=accuracy and accuracy.hallucination_rate,
        mean_words=mean_words(captions),
        distinct=distinct_share(captions),
        clip_score=clip_score,
        retrieval_at_1=retrieval_at_1,
        images_per_second=images_per_second,
    )


def evaluate_generation(
    pixels: np.ndarray, prompts: PromptSet, judges: Judges, *, model: str, decoder: str, upsampled: bool = False
) -> GenerationFigures:
    """Pictures uint8 (N, H, W, 3), one per prompt, against the prompts as the user wrote them.

    Where the prompts were upsampled before sampling, ``prompts`` still holds the original ones (DALL-E 3 report,
    section 4.1.3).
    """
    if len(pixels) != len(prompts.texts):
        raise ValueError(f"{len(pixels)} pictures for {len(prompts.texts)} prompts; generate one per prompt")
    following = _following(judges, prompts, pixels)
    clip_score, retrieval_at_1 = _clip_figures(judges, pixels, prompts.texts)
    return GenerationFigures(
        model=model,
        prompts=prompts.kind,
        upsampled=upsampled,
        decoder=decoder,
        num_prompts=len(prompts.texts),
        **{name: getattr(following, name) for name in PromptFollowing.__dataclass_fields__},
        clip_score=clip_score,
        retrieval_at_1=retrieval_at_1,
        fid=_distance(fid, judges, pixels),
        kid=_distance(kid, judges, pixels),
    )


def evaluate_decoder(
    decoded: np.ndarray,
    originals: np.ndarray,
    judges: Judges,
    *,
    num_inference_steps: int,
    scenes: Sequence[Scene] | None = None,
    images_per_second: Figure | None = None,
    generated: GeneratedDecoderFigures | None = None,
) -> DecoderFigures:
    """Decoded pictures against those that were encoded, both uint8 (N, H, W, 3).

    FID compares them with their own originals (``paired_fid``). ``scene_accuracy`` is the share of decoded pictures
    that read as exactly the true scene. ``generated`` comes from :func:`evaluate_decoded_generations`.
    """
    following = PromptFollowing()
    if judges.read is not None and scenes is not None:
        following = judge_accuracy(scenes, judges.read(decoded))
    return DecoderFigures(
        num_inference_steps=num_inference_steps,
        psnr=mean(psnr(decoded, originals)),
        fid=_paired_distance(judges, decoded, originals),
        detail_ratio=mean(detail_ratios(decoded, originals)),
        scene_accuracy=following.scene_accuracy,
        images_per_second=images_per_second,
        generated=generated,
    )


def evaluate_decoded_generations(pixels: np.ndarray, prompts: PromptSet, judges: Judges) -> GeneratedDecoderFigures:
    """A decoder's pictures of latents that were generated for these prompts."""
    return GeneratedDecoderFigures(
        scene_accuracy=_following(judges, prompts, pixels).scene_accuracy, fid=_distance(fid, judges, pixels)
    )


def _following(judges: Judges, prompts: PromptSet, pixels: np.ndarray) -> PromptFollowing:
    if judges.read is None or prompts.facts is None:
        return PromptFollowing()
    return prompt_following(prompts.facts, judges.read(pixels))


def _clip_figures(judges: Judges, pixels: np.ndarray, texts: Sequence[str]) -> tuple[Figure | None, Figure | None]:
    if judges.image_embeds is None or judges.text_embeds is None:
        return None, None
    images, embeds = judges.image_embeds(pixels), judges.text_embeds(texts)
    return mean(clip_scores(images, embeds)), share(retrieval_hits(images, embeds, texts))


def _distance(metric: Callable[[np.ndarray, np.ndarray], Figure], judges: Judges, pixels: np.ndarray) -> Figure | None:
    return metric(judges.reference.extract(pixels), judges.reference.features) if judges.reference else None


def _paired_distance(judges: Judges, pixels: np.ndarray, originals: np.ndarray) -> Figure | None:
    extract = judges.reference.extract if judges.reference else None
    return paired_fid(extract(pixels), extract(originals)) if extract else None
