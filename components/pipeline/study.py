"""``caption_blend_study``: the text-to-image model on other blends of captions, with equal steps, data and model.

What belongs here: the arms of the study, what an arm draws and how it is measured. What does not: how an arm is trained
(``train``, as every model) and how arms are compared (``report``).
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from components.contracts import Rows
from components.data.catalog import Dataset
from components.data.lake import Record
from components.data.pictures import captioned_grid
from components.evaluation.blend_study import LONG
from components.execution.device import has_cpu_compiler
from components.families.latent_diffusion.config import LatentDiffusionConfig
from components.recipes.recipe import Recipe, Trained

from .costs import track_costs
from .judging import (
    final_prompt_sets,
    load_judges,
    load_upsampler,
    prompt_sets,
    raw_prompts,
    reference_rows,
    upsampler_settings,
)
from .progress import silence_libraries
from .rows import in_memory, load_rows
from .train import KeptAs, SamplingPlan, fit_stage
from .workspace import Made, Outcome, UnfitParent, Workspace

if TYPE_CHECKING:
    from components.evaluation.figures import GenerationFigures
    from components.evaluation.measurement import PromptSet

log = logging.getLogger(__name__)
ASSET = "caption_blend_study"
UNSEEN_BY_ARMS = {"num_teacher_steps", "num_shown", "num_threads", "suites", "num_suite_prompts"}
UNSEEN_BY_ARMS |= {"max_upsampled_length_gap", "min_upsampled_known_words"}
UPSAMPLED = "short_upsampled"


@dataclass(frozen=True, slots=True)
class Blend:
    """Which synthetic captions, and in which share of the steps (DALL-E 3 report, section 3.4)."""

    synthetic_kind: Literal["ssc", "dsc", "truth_dsc"]
    synthetic_fraction: float


BLENDS: Mapping[str, Blend] = {
    "raw": Blend("dsc", 0.0),
    "ssc-95": Blend("ssc", 0.95),
    "dsc-65": Blend("dsc", 0.65),
    "dsc-80": Blend("dsc", 0.80),
    "dsc-90": Blend("dsc", 0.90),
    "dsc-95": Blend("dsc", 0.95),
    "oracle": Blend("truth_dsc", 0.95),
}
MAX_SEEDS = 5
DEMO_ARM = "raw-seed0"  # trained beside the main model, so that every user sees what captions do on their data
LONG_ARMS = (f"raw{LONG}-seed0", f"dsc-95{LONG}-seed0")
ARMS = (*(f"{blend}-seed{seed}" for seed in range(MAX_SEEDS) for blend in BLENDS), *LONG_ARMS)


def arms_of(recipe: Recipe, dataset: Dataset) -> list[str]:
    """The arms that the recipe asks for: all blends with one seed, then with the next, then the long trainings.

    There is no oracle without ground truth.
    """
    asked = [arm for arm in ARMS if seed_of(arm) < recipe.study.num_seeds]
    if recipe.study.long_factor == 1:
        asked = [arm for arm in asked if arm not in LONG_ARMS]
    return [arm for arm in asked if blend_of(arm) != "oracle" or dataset.has_ground_truth]


def blend_of(arm: str) -> str:
    """``dsc-95`` of ``dsc-95-seed0``, ``raw-long`` of ``raw-long-seed0``."""
    return arm.rpartition("-seed")[0]


def seed_of(arm: str) -> int:
    """0 of ``dsc-95-seed0``."""
    return int(arm.rpartition("-seed")[2])


def section_of_arm(ws: Workspace, arm: str) -> Trained[LatentDiffusionConfig]:
    """The recipe's ``latent_diffusion`` with the arm's blend, seed and (in a long arm) steps, and no other change."""
    section, blend = ws.recipe.latent_diffusion, BLENDS[blend_of(arm).removesuffix(LONG)]
    changed: dict[str, Any] = {"seed": section.training.seed + seed_of(arm)}
    if arm in LONG_ARMS:
        changed |= {
            "num_steps": section.training.num_steps * ws.recipe.study.long_factor,
            "compile": ws.recipe.study.compiles_long_arms and section.training.sharding == "none",
        }
    return Trained(
        model=section.model.model_copy(
            update={"synthetic_kind": blend.synthetic_kind, "synthetic_fraction": blend.synthetic_fraction}
        ),
        training=section.training.model_copy(update=changed),
    )


def check_long_arms(recipe: Recipe, arms: Sequence[str]) -> None:
    """Raise :class:`UnfitParent` where long arms could not be compiled here, before hours of work for the others."""
    on_cpu = not recipe.latent_diffusion.training.num_gpus_per_worker
    if recipe.study.compiles_long_arms and on_cpu and set(arms) & set(LONG_ARMS) and not has_cpu_compiler():
        raise UnfitParent(
            "the study's long arms are compiled, which needs a C++ compiler, and none of c++, g++, clang++ is on the "
            "PATH: install g++, or give --set study.compiles_long_arms=false"
        )


def train_arm(ws: Workspace, arm: str) -> Outcome:
    """Train (or reuse) one arm, draw held-out prompts with it and measure the pictures."""
    if arm not in arms_of(ws.recipe, ws.dataset):
        raise UnfitParent(
            f"{ASSET}[{arm}] is not asked for: study.num_seeds is {ws.recipe.study.num_seeds} and study.long_factor "
            f"{ws.recipe.study.long_factor} in recipe {ws.recipe.name!r}"
            + ("" if ws.dataset.has_ground_truth else ", and only scenes has an oracle")
        )
    inputs, settings = identity_of(ws, arm)
    outcome = ws.materialize(ASSET, inputs, settings, lambda fingerprint: _Arm(ws, arm).run(fingerprint, inputs), arm)
    return track_costs(ws, outcome)


def train_demo_arm(ws: Workspace) -> Outcome:
    """The arm that belongs to every demo."""
    return train_arm(ws, DEMO_ARM)


def finished_arms(ws: Workspace) -> dict[str, list[Record]]:
    """Records of the arms that are up to date, by blend; an arm of other captions or settings is left out."""
    found: dict[str, list[Record]] = {}
    for arm in arms_of(ws.recipe, ws.dataset):
        current = ws.lake.record(ASSET, "model", arm)
        if current is not None and current.fingerprint == ws.fingerprint(ASSET, *identity_of(ws, arm)):
            found.setdefault(blend_of(arm), []).append(current)
    return found


def read_drawn(ws: Workspace, record: Record) -> dict[str, np.ndarray]:
    """What an arm drew at its end, uint8 (N, H, W, 3) by kind of prompt."""
    data = ws.lake.read_bytes(f"{record.path}.drawn.npz")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {kind: arrays[kind] for kind in arrays.files}


def identity_of(ws: Workspace, arm: str) -> tuple[dict[str, str], Any]:
    """An arm's inputs and settings, which make its fingerprint."""
    parents = ("training_set", "vae", "text_encoder", "prompt_upsampler", "evaluation_clip", "attribute_judge")
    inputs = {name: ws.parent(name).data_version for name in parents}
    inputs["latents"] = ",".join(record.data_version for record in ws.lake.records("latents").values())
    evaluation = ws.recipe.evaluation.model_dump(mode="json", exclude=UNSEEN_BY_ARMS)
    settings = {
        "section": section_of_arm(ws, arm).model_dump(mode="json"),
        "evaluation": evaluation,
        "upsampler": upsampler_settings(ws),
        "study": ws.recipe.study.model_dump(mode="json", exclude={"num_seeds", "long_factor", "compiles_long_arms"}),
    }
    return inputs, settings


class _Arm:
    """One arm: trained, then measured on the same prompts as every other."""

    def __init__(self, ws: Workspace, arm: str) -> None:
        self.ws, self.arm = ws, arm
        self.section = section_of_arm(ws, arm)
        self.config = ws.recipe.evaluation
        rows = load_rows(ws, with_recaptions=True, with_truth=True).evaluation
        self.reference: Rows = reference_rows(rows, self.config)
        self.rows: Rows = in_memory(rows, self.config.num_pictures)
        self.prompts = final_prompt_sets(self.rows, self.config.num_prompts)
        self.curve_prompts = [raw_prompts(self.rows, ws.recipe.study.num_curve_prompts)]
        self.curve_prompts += prompt_sets(self.rows, ws.recipe.study.num_curve_prompts)

    def run(self, fingerprint: str, inputs: Mapping[str, str]) -> Made:
        """The trained arm with its figures."""
        silence_libraries()
        recipe = self.ws.recipe.model_copy(update={"latent_diffusion": self.section})
        kept_as = KeptAs(ASSET, self.arm)
        fitted = fit_stage(self.ws.with_recipe(recipe), "latent_diffusion", fingerprint, inputs, kept_as, self._plan())
        final, curve, drawn = self._measure(fitted.made, fitted.drawn)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **drawn)
        self.ws.lake.write_bytes(f"{fitted.made.path}.drawn.npz", buffer.getvalue())
        fitted.checkpoints.clear()
        described = drawn["descriptive"][:8]
        return Made(
            data_version=fitted.made.data_version,
            path=fitted.made.path,
            metadata={**fitted.made.metadata, "figures": final, "curve": curve},
            pictures={
                **fitted.made.pictures,
                "drawn": captioned_grid(described, self.prompts[-1].texts[: len(described)]),
            },
            registry=fitted.made.registry,
            workers=fitted.made.workers,
        )

    def _plan(self) -> SamplingPlan:
        num_steps, num_points = self.section.training.num_steps, self.ws.recipe.study.num_points
        steps = {max(1, round(num_steps * point / num_points)) for point in range(1, num_points + 1)}
        return SamplingPlan(
            steps=tuple(sorted(steps)),
            prompts={prompts.kind: tuple(prompts.texts) for prompts in self.curve_prompts},
            seed=self.config.seed,
            num_inference_steps=self.config.num_inference_steps,
            guidance_scale=self.config.guidance_scale,
        )

    def _measure(
        self, made: Made, drawn: Mapping[int, Mapping[str, np.ndarray]]
    ) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, np.ndarray]]:
        from components.evaluation.figures import values_of
        from components.evaluation.measurement import evaluate_generation
        from components.families.latent_diffusion.sample import generate, load_pipeline
        from components.families.vae.sample import decode

        judges = load_judges(self.ws, self.reference)[0]
        pipeline = load_pipeline(self.ws.lake.fetch_folder(made.path, self.ws.scratch))

        def measured(pixels: np.ndarray, prompts: PromptSet, *, is_upsampled: bool = False) -> GenerationFigures:
            return evaluate_generation(
                pixels, prompts, judges, model=blend_of(self.arm), decoder="vae", upsampled=is_upsampled
            )

        curve = [
            {
                "step": step,
                "prompts": prompts.kind,
                "figures": values_of(measured(decode(pipeline.vae, latents[prompts.kind]), prompts)),
            }
            for step, latents in sorted(drawn.items())
            for prompts in self.curve_prompts
        ]
        upsample = load_upsampler(self.ws)
        final, pictures = {}, {}
        for prompts in self.prompts:
            asked: dict[str, Sequence[str]] = {prompts.kind: prompts.texts}
            if prompts.kind == "short" and upsample is not None:
                asked[UPSAMPLED] = upsample(prompts.texts)
            for name, texts in asked.items():
                log.info("%s[%s] draws %d %s prompts", ASSET, self.arm, len(texts), name.replace("_", " "))
                pictures[name] = generate(
                    pipeline,
                    texts,
                    [self.config.seed + number for number in range(len(texts))],
                    num_inference_steps=self.config.num_inference_steps,
                    guidance_scale=self.config.guidance_scale,
                    batch_size=self.config.batch_size,
                )
                final[name] = values_of(measured(pictures[name], prompts, is_upsampled=name == UPSAMPLED))
        return final, curve, pictures
