"""The parts of ``report.json``: typed, every number with its interval and sample count, absent where not measured.

What belongs here: names and order of the report's fields (DESIGN section 8) and how they become JSON. What does not:
how a figure is measured (``measurement``) and how it is shown (``report``, ``report.html.j2``).
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from components.contracts import Frozen

from .intervals import Figure
from .prompt_following import PromptFollowing

_NOT_IN_NAMES = re.compile(r"[^\w./: -]")


class JudgeFigures(Frozen):
    """How rightly the attribute judge reads held-out real pictures, by attribute and for whole scenes."""

    scene_accuracy: Figure | None = None
    object_accuracy: Figure | None = None
    colour: Figure | None = None
    shape: Figure | None = None
    size: Figure | None = None
    count: Figure | None = None
    place: Figure | None = None
    relation: Figure | None = None
    background: Figure | None = None
    style: Figure | None = None
    text: Figure | None = None

    @classmethod
    def of(cls, following: PromptFollowing) -> "JudgeFigures":
        """The figures of :func:`components.evaluation.prompt_following.judge_accuracy`."""
        return cls(**{name: getattr(following, name) for name in cls.model_fields})


class CaptionFigures(Frozen):
    """What one kind of caption (raw, ssc, dsc) says of held-out pictures."""

    attribute_accuracy: Figure | None = None
    exact_match: Figure | None = None
    hallucination_rate: Figure | None = None
    mean_words: Figure | None = None
    distinct: Figure | None = None
    clip_score: Figure | None = None
    retrieval_at_1: Figure | None = None
    images_per_second: Figure | None = None
    rows_written: int | None = Field(default=None, description="Rows whose caption was written when last recaptioned.")
    rows_reused: int | None = Field(default=None, description="Rows whose caption an earlier version held.")


class GenerationFigures(Frozen):
    """How well one model's pictures follow one kind of prompt, through one decoder."""

    model: str = Field(description="The captions it was trained on: raw, ssc-95, dsc-65 to dsc-95, oracle.")
    prompts: str = Field(description="short, descriptive or relations.")
    upsampled: bool = Field(description="Whether the upsampler rewrote the prompts; they are judged as they were.")
    decoder: str = Field(description="vae or consistency.")
    num_prompts: int
    num_seeds: int = Field(default=1, description="Trainings that the figures are the mean of.")
    is_study: bool = Field(default=False, description="Whether the study's trainings are meant, not the main model.")
    scene_accuracy: Figure | None = None
    one_object: Figure | None = Field(default=None, description="Whole scenes, of prompts for a single object.")
    object_accuracy: Figure | None = None
    colour: Figure | None = None
    shape: Figure | None = None
    size: Figure | None = None
    count: Figure | None = None
    place: Figure | None = None
    relation: Figure | None = None
    background: Figure | None = None
    style: Figure | None = None
    text: Figure | None = None
    clip_score: Figure | None = None
    retrieval_at_1: Figure | None = None
    fid: Figure | None = None
    kid: Figure | None = None


class SuiteFigures(Frozen):
    """How well the model's pictures follow the prompts of one category of a prompt suite."""

    suite: str = Field(description="scenes, geneval, t2i-compbench or parti.")
    category: str
    num_prompts: int
    scene_accuracy: Figure | None = None
    object_accuracy: Figure | None = None
    colour: Figure | None = None
    shape: Figure | None = None
    count: Figure | None = None
    place: Figure | None = None
    relation: Figure | None = None
    clip_score: Figure | None = None
    retrieval_at_1: Figure | None = None


class UpsamplingFigures(Frozen):
    """Upsampled prompts beside the captions that the model was trained on."""

    num_prompts: int
    words: Figure | None = None
    caption_words: Figure | None = None
    clauses: Figure | None = Field(default=None, description="Parts between punctuation marks.")
    caption_clauses: Figure | None = None
    known_words: Figure | None = Field(default=None, description="Share of words that stand in captions.")
    length_gap: float = Field(description="Kolmogorov-Smirnov distance of the lengths in words.")
    complaints: tuple[str, ...] = ()


class CurvePoint(Frozen):
    """How well a model in training follows prompts after so many steps."""

    model: str
    prompts: str = Field(description="raw (original captions), short or descriptive.")
    step: int
    num_seeds: int = 1
    scene_accuracy: Figure | None = None
    object_accuracy: Figure | None = None
    clip_score: Figure | None = None
    retrieval_at_1: Figure | None = None


class GeneratedDecoderFigures(Frozen):
    """A decoder's pictures of generated latents."""

    scene_accuracy: Figure | None = None
    fid: Figure | None = None


class DecoderFigures(Frozen):
    """A decoder's pictures of encoded held-out pictures, and of generated latents."""

    num_inference_steps: int
    psnr: Figure | None = None
    fid: Figure | None = None
    detail_ratio: Figure | None = None
    scene_accuracy: Figure | None = None
    images_per_second: Figure | None = None
    generated: GeneratedDecoderFigures | None = None


class ModelRecord(Frozen):
    """A model of this run: its registry entry, where it lies and what it was made from."""

    registry: str = Field(description="name/version in the registry.")
    uri: str
    parents: tuple[str, ...] = Field(default=(), description="Parent versions (registry or data versions).")
    cost: float | None = Field(default=None, description="What it cost, with everything that it was made from.")


class Report(Frozen):
    """Everything that ``report.json`` holds."""

    dataset: str
    recipe: str
    atelier_version: str
    git_commit: str | None = None
    seed: int
    seconds: dict[str, float] = Field(default_factory=dict, description="Wall seconds by asset.")
    cpu_seconds: dict[str, float] = Field(default_factory=dict, description="CPU seconds of all processes by asset.")
    gpu_seconds: dict[str, float] = Field(default_factory=dict, description="Seconds that GPUs were held, by asset.")
    peak_memory_gib: dict[str, float] = Field(default_factory=dict, description="Peak memory by asset.")
    cost: dict[str, float] = Field(default_factory=dict, description="Cost by asset, at the prices of its making.")
    feature_extractor: str | None = Field(default=None, description="Whose features FID and KID compare.")
    verdict: tuple[str, ...] = ()
    judge: JudgeFigures | None = None
    second_judge: JudgeFigures | None = Field(default=None, description="The second judge on the same real pictures.")
    judges_agree: dict[str, JudgeFigures] = Field(
        default_factory=dict,
        description="Of what the first judge reads in generated pictures, what the second reads too.",
    )
    captions: dict[str, CaptionFigures] = Field(default_factory=dict)
    generation: tuple[GenerationFigures, ...] = ()
    upsampling: UpsamplingFigures | None = Field(default=None, description="Upsampled prompts against captions.")
    suites: tuple[SuiteFigures, ...] = Field(default=(), description="The main model on prompt suites, by category.")
    curves: tuple[CurvePoint, ...] = Field(default=(), description="Prompt following over training, by blend.")
    decoder: dict[str, DecoderFigures] = Field(default_factory=dict)
    decoder_shortcomings: tuple[str, ...] = Field(
        default=(), description="Why the consistency decoder may not become champion; empty where it may."
    )
    models: dict[str, ModelRecord] = Field(default_factory=dict)

    def to_json(self) -> str:
        """``report.json``: fields that were not measured are absent. ValueError where a number is not finite."""
        return json.dumps(self.model_dump(mode="json", exclude_none=True), indent=1, allow_nan=False) + "\n"

    def metrics(self) -> dict[str, float]:
        """Every figure's value under one flat name, for example ``generation/dsc-95/short/vae/clip_score``.

        Names hold no character that MLflow refuses, as there are in the categories of prompt suites.
        """
        parts: list[tuple[str, Frozen]] = [("judge", self.judge)] if self.judge else []
        parts += [(f"captions/{kind}", figures) for kind, figures in self.captions.items()]
        for figures in self.generation:
            prompts = f"{figures.prompts}_upsampled" if figures.upsampled else figures.prompts
            model = f"study/{figures.model}" if figures.is_study else figures.model
            parts.append((f"generation/{model}/{prompts}/{figures.decoder}", figures))
        parts += [("upsampling", self.upsampling)] if self.upsampling else []
        parts += [(f"suites/{figures.suite}/{figures.category}", figures) for figures in self.suites]
        parts += [(f"judges_agree/{kind}", figures) for kind, figures in self.judges_agree.items()]
        for name, figures in self.decoder.items():
            parts.append((f"decoder/{name}", figures))
            if figures.generated:
                parts.append((f"decoder/{name}/generated", figures.generated))
        return {
            _NOT_IN_NAMES.sub("", f"{prefix}/{name}"): figure.value
            for prefix, part in parts
            for name, figure in figures_of(part)
        }


def figures_of(part: Frozen) -> Iterator[tuple[str, Figure]]:
    """Names and figures of those fields of a part that were measured."""
    for name in type(part).model_fields:
        value: Any = getattr(part, name)
        if isinstance(value, Figure):
            yield name, value


def values_of(part: Frozen) -> dict[str, list[Any]]:
    """The measured fields of a part as JSON: value, interval (or None) and number of samples by name."""
    return {
        name: [figure.value, figure.ci95 and list(figure.ci95), figure.num_samples] for name, figure in figures_of(part)
    }


def in_per_cent(values: Sequence[Any] | None) -> str:
    """A share as :func:`values_of` gives it, for tables: ``93.9 % (91.4-95.7)``; a dash where there is none."""
    if values is None:
        return "-"
    value, interval, _ = values
    return f"{100 * value:.1f} %" + (f" ({100 * interval[0]:.1f}-{100 * interval[1]:.1f})" if interval else "")
