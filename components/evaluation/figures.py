"""The parts of ``report.json``: typed, every number with its interval and sample count, absent where not measured.

What belongs here: names and order of the report's fields (DESIGN section 8) and how they become JSON. What does not:
how a figure is measured (``measurement``) and how it is shown (``report``, ``report.html.j2``).
"""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from components.contracts import Frozen

from .intervals import Figure
from .prompt_following import PromptFollowing


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


class GenerationFigures(Frozen):
    """How well one model's pictures follow one kind of prompt, through one decoder."""

    model: str = Field(description="The captions it was trained on: raw, ssc-95, dsc-65 to dsc-95, oracle.")
    prompts: str = Field(description="short or descriptive.")
    upsampled: bool = Field(description="Whether the upsampler rewrote the prompts; they are judged as they were.")
    decoder: str = Field(description="vae or consistency.")
    num_prompts: int
    num_seeds: int = Field(default=1, description="Trainings that the figures are the mean of.")
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
    clip_score: Figure | None = None
    retrieval_at_1: Figure | None = None
    fid: Figure | None = None
    kid: Figure | None = None


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


class Report(Frozen):
    """Everything that ``report.json`` holds."""

    dataset: str
    recipe: str
    atelier_version: str
    git_commit: str | None = None
    seed: int
    seconds: dict[str, float] = Field(default_factory=dict, description="Wall seconds by asset.")
    peak_memory_gib: dict[str, float] = Field(default_factory=dict, description="Peak memory by asset.")
    feature_extractor: str | None = Field(default=None, description="Whose features FID and KID compare.")
    verdict: tuple[str, ...] = ()
    judge: JudgeFigures | None = None
    captions: dict[str, CaptionFigures] = Field(default_factory=dict)
    generation: tuple[GenerationFigures, ...] = ()
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
        """Every figure's value under one flat name, for example ``generation/dsc-95/short/vae/clip_score``."""
        parts: list[tuple[str, Frozen]] = [("judge", self.judge)] if self.judge else []
        parts += [(f"captions/{kind}", figures) for kind, figures in self.captions.items()]
        for figures in self.generation:
            prompts = f"{figures.prompts}_upsampled" if figures.upsampled else figures.prompts
            parts.append((f"generation/{figures.model}/{prompts}/{figures.decoder}", figures))
        for name, figures in self.decoder.items():
            parts.append((f"decoder/{name}", figures))
            if figures.generated:
                parts.append((f"decoder/{name}/generated", figures.generated))
        return {f"{prefix}/{name}": figure.value for prefix, part in parts for name, figure in figures_of(part)}


def figures_of(part: Frozen) -> Iterator[tuple[str, Figure]]:
    """Names and figures of those fields of a part that were measured."""
    for name in type(part).model_fields:
        value: Any = getattr(part, name)
        if isinstance(value, Figure):
            yield name, value
