"""What a recipe is: one frozen, typed configuration of the whole graph, and how dotted overrides change it.

What belongs here: the shape of a recipe. What does not: any recipe's values (``smoke``, ``tiny``, ``base``, ``paper``).
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, ValidationError

from components.captioning.quality import QualityConfig
from components.contracts import Frozen, Resources
from components.data.duplicates import NearDuplicates
from components.data.ingest import IngestConfig
from components.evaluation.decoder_gate import DecoderGateConfig
from components.families.attribute_judge.config import JudgeConfig
from components.families.captioner.config import CaptionerConfig
from components.families.clip.config import ClipConfig
from components.families.consistency_decoder.config import ConsistencyDecoderConfig
from components.families.diffusion_decoder.config import DiffusionDecoderConfig
from components.families.hub_captioner.config import HubCaptionerConfig
from components.families.latent_diffusion.config import LatentDiffusionConfig
from components.families.prompt_upsampler.config import EndpointConfig, PromptUpsamplerConfig
from components.families.vae.config import VaeConfig
from components.training.config import TrainingConfig

Model = TypeVar("Model")
AnyCaptioner = Annotated[CaptionerConfig | HubCaptionerConfig, Field(discriminator="family")]


class RecipeError(ValueError):
    """A recipe's name or an override is wrong; the message says what is allowed."""


class Trained(Frozen, Generic[Model]):
    """A model and how it is trained."""

    model: Model = Field(description="The model's own configuration.")
    training: TrainingConfig = Field(description="How it is trained.")


class DataConfig(Frozen):
    """What is taken from the data set and how pictures reach the models."""

    resolution: int = Field(description="Side of the square pictures that models see, in pixels.", gt=0)
    fit: Literal["pad", "crop", "stretch"] = Field(default="pad", description="How other aspects become square.")
    max_shards: int | None = Field(default=None, description="Take only the first shards (quick runs); none takes all.")
    max_rows_per_shard: int | None = Field(
        default=None, description="Take only the first rows of a shard; none takes all."
    )
    near_duplicates: NearDuplicates | None = Field(
        default=None, description="Set near copies of pictures aside, across all shards; null: only equal ones."
    )
    ingest: IngestConfig = Field(default_factory=IngestConfig, description="Limits and rules for pictures.")


class MapConfig(Frozen):
    """Resources of data-parallel work: recaptioning and encoding."""

    num_cpus_per_worker: float = Field(default=1.0, description="CPUs of one worker.", gt=0)
    num_gpus_per_worker: float = Field(default=0.0, description="GPUs of one worker.", ge=0)
    max_workers: int | None = Field(default=None, description="Workers at most; none takes what the cluster has free.")

    @property
    def resources(self) -> Resources:
        """What one worker takes."""
        return Resources(self.num_cpus_per_worker, self.num_gpus_per_worker)


class RecaptionConfig(Frozen):
    """How captions are written and when a shard of them is refused."""

    temperature: float = Field(
        default=0.0, description="0 writes greedily; above, captions are sampled per (seed, key).", ge=0
    )
    seed: int = Field(default=0, description="Seed of sampled captions.")
    batch_multiple: int = Field(
        default=32,
        description="Batches are filled up to a multiple of so many rows, so that a caption does not depend on how "
        "many others are written with it; on GPUs 512, which gives every batch the same shape.",
        gt=0,
    )
    num_gate_pictures: int = Field(default=256, description="Held-out pictures on which captioners must pass.", gt=1)
    num_golden_pictures: int = Field(
        default=32, description="Golden pictures made from ground truth, where the data set names none.", ge=0
    )
    quality: QualityConfig = Field(default_factory=QualityConfig, description="Thresholds of the caption tests.")
    workers: MapConfig = Field(default_factory=MapConfig, description="Resources of captioning workers.")


class EvaluationConfig(Frozen):
    """What the evaluation report measures, and on how many samples."""

    num_prompts: int = Field(description="Held-out prompts per prompt kind.", gt=0)
    num_pictures: int = Field(description="Held-out pictures for captions, judge and decoder.", gt=0)
    num_inference_steps: int = Field(description="Sampling steps of the text-to-image model.", gt=0)
    guidance_scale: float = Field(description="Classifier-free guidance weight; 1 turns it off.", ge=1)
    num_teacher_steps: int = Field(default=25, description="Sampling steps of the undistilled decoder.", gt=0)
    batch_size: int = Field(default=64, description="Pictures per batch while sampling.", gt=0)
    seed: int = Field(default=1234, description="Seed of the sampled pictures.")
    num_threads: int = Field(default=2, description="CPU threads, while nothing else runs beside the report.", gt=0)
    num_shown: int = Field(default=12, description="Pictures in each gallery.", gt=0)
    suites: str | None = Field(
        default=None,
        description="Folder or URI of prompt suites (GenEval, T2I-CompBench, PartiPrompts) as datasets/prompts says.",
    )
    max_upsampled_length_gap: float = Field(
        default=0.5, description="Largest distance (Kolmogorov-Smirnov) of upsampled prompts' lengths from captions'."
    )
    min_upsampled_known_words: float = Field(
        default=0.9, description="Share of upsampled prompts' words that must stand in captions trained on."
    )
    num_suite_prompts: int = Field(default=20, description="Prompts of each category of a suite.", gt=0)


class StudyConfig(Frozen):
    """How far the study of caption blends goes."""

    num_seeds: int = Field(default=3, description="Trainings of each blend.", ge=1, le=5)
    long_factor: int = Field(
        default=12,
        description="Two blends (raw, dsc-95) are trained once more for so many times the steps; 1: not.",
        ge=1,
    )
    compiles_long_arms: bool = Field(
        default=True, description="Compile these two, where it pays; needs a C++ compiler on CPUs."
    )
    num_points: int = Field(default=4, description="Points of the curves over training steps.", ge=1)
    num_curve_prompts: int = Field(default=100, description="Prompts of each kind at each point.", gt=0)


class DecoderStudyConfig(Frozen):
    """How far the study of the diffusion decoder and its student goes."""

    num_seeds: int = Field(default=3, description="Trainings of teacher and student.", ge=1, le=9)


class Recipe(Frozen):
    """The whole graph's configuration."""

    name: str = Field(description="The recipe's name.")
    data: DataConfig
    evaluation_clip: Trained[ClipConfig]
    attribute_judge: Trained[JudgeConfig]
    second_judge: Trained[JudgeConfig] = Field(description="Checks the first: another seed, other rows.")
    clip: Trained[ClipConfig]
    base_captioner: Trained[AnyCaptioner]
    ssc_captioner: Trained[AnyCaptioner]
    dsc_captioner: Trained[AnyCaptioner]
    recaption: RecaptionConfig
    vae: Trained[VaeConfig]
    latents: MapConfig = Field(default_factory=MapConfig, description="Resources of encoding workers.")
    prompt_upsampler: Trained[PromptUpsamplerConfig]
    upsampler_endpoint: EndpointConfig | None = Field(
        default=None, description="Rewrites prompts in the T5's place; the T5 stays the text encoder."
    )
    latent_diffusion: Trained[LatentDiffusionConfig]
    diffusion_decoder: Trained[DiffusionDecoderConfig]
    consistency_decoder: Trained[ConsistencyDecoderConfig]
    evaluation: EvaluationConfig
    decoder_gate: DecoderGateConfig = Field(
        default_factory=DecoderGateConfig, description="What the two-step decoder must show to become champion."
    )
    study: StudyConfig = Field(default_factory=StudyConfig, description="The study of caption blends.")
    decoder_study: DecoderStudyConfig = Field(
        default_factory=DecoderStudyConfig, description="The study of the diffusion decoder and its student."
    )

    def with_overrides(self, overrides: Mapping[str, str]) -> "Recipe":
        """The recipe with dotted fields replaced, for example ``latent_diffusion.training.num_steps=200``.

        Values are JSON where they parse as JSON, else text. Raises :class:`RecipeError` naming the field and what is
        allowed there.
        """
        values = self.model_dump(mode="json")
        for dotted, text in overrides.items():
            _assign(values, dotted, text)
        try:
            return type(self).model_validate(values)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise RecipeError(f"override refused by recipe {self.name!r}: {problems}") from error


def _assign(values: dict[str, Any], dotted: str, text: str) -> None:
    *path, last = dotted.split(".")
    place: Any = values
    for depth, name in enumerate([*path, last]):
        if not isinstance(place, dict) or name not in place:
            where = ".".join(dotted.split(".")[:depth]) or "the recipe"
            allowed = ", ".join(sorted(place)) if isinstance(place, dict) else "nothing below it"
            raise RecipeError(f"override {dotted!r}: {where} has no field {name!r}; allowed: {allowed}")
        if depth < len(path):
            place = place[name]
    try:
        place[last] = json.loads(text)
    except json.JSONDecodeError:
        place[last] = text
