"""What text-to-image models are measured with and on: the judges, held-out prompts, and a model's name by its captions.

What belongs here: choices that the report and the study of caption blends must share to be comparable. What does not:
metrics (``components.evaluation``) and what is measured when (``report``, ``study``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from components.contracts import Rows
from components.data.catalog import DATASETS
from components.families.latent_diffusion.config import LatentDiffusionConfig
from components.recipes.recipe import EvaluationConfig

from .rows import in_memory, subset
from .workspace import Workspace

if TYPE_CHECKING:
    from components.data.scene_graph import Scene
    from components.evaluation.measurement import Judges, PromptSet
    from components.evaluation.prompts import Prompt

PROMPT_KINDS = ("short", "descriptive")
RELATIONS = "relations"  # a kind of prompt of its own: "left of" and "above", without places
MAX_RELATION_PROMPTS = 100
SCENES_SUITE = DATASETS / "prompts" / "scenes.jsonl"
SYNTHETIC_NAMES = {"truth_ssc": "oracle-ssc", "truth_dsc": "oracle"}


def blend_name(model: LatentDiffusionConfig) -> str:
    """The captions that a model learned from: ``raw``, ``ssc-95``, ``dsc-95``, ``oracle`` (true descriptions)."""
    if not model.synthetic_fraction:
        return "raw"
    share = round(100 * model.synthetic_fraction)
    return SYNTHETIC_NAMES.get(model.synthetic_kind) or f"{model.synthetic_kind}-{share}"


def reference_rows(held_out: Rows, config: EvaluationConfig) -> Rows:
    """The held-out rows with whose pictures FID and KID compare: none that prompts describe, where there are enough.

    Pictures drawn from the words of the very pictures in the reference lie nearer to it than independent ones, and
    KID's estimator supposes independent sets.
    """
    first = config.num_prompts if len(held_out) >= 2 * config.num_prompts else 0
    return in_memory(subset(held_out, np.arange(first, len(held_out))), config.num_pictures)


def load_judges(ws: Workspace, rows: Rows) -> tuple[Judges, str]:
    """The judges, with real pictures of ``rows`` as the reference of FID and KID, and the feature extractor's name."""
    from components.evaluation.measurement import Judges, Reference
    from components.families.clip.sample import load_clip

    clip = load_clip(ws.model_folder("evaluation_clip"))
    if rows.scenes is None:
        name = f"{ws.parent('evaluation_clip').registry} image embeddings"
        return Judges(None, clip.image_embeds, clip.text_embeds, Reference.of(clip.image_embeds, rows.pixels)), name
    from components.families.attribute_judge.sample import load_judge

    judge = load_judge(ws.model_folder("attribute_judge"))
    name = f"{ws.parent('attribute_judge').registry} features"
    return Judges(judge.read, clip.image_embeds, clip.text_embeds, Reference.of(judge.features, rows.pixels)), name


def prompt_sets(rows: Rows, num_prompts: int) -> list[PromptSet]:
    """Held-out prompts: from the truth where there is any, else the held-out pictures' own synthetic captions."""
    from components.data import scenes as world
    from components.evaluation.measurement import PromptSet

    rows = subset(rows, np.arange(min(len(rows), num_prompts)))
    if rows.scenes is None:
        texts = {"short": rows.texts["ssc"], "descriptive": rows.texts["dsc"]}
        return [PromptSet(kind, [text or "" for text in texts[kind]]) for kind in PROMPT_KINDS]
    return [
        PromptSet(kind, world.prompts(kind, rows.scenes), [world.prompt_facts(kind, scene) for scene in rows.scenes])
        for kind in PROMPT_KINDS
    ]


def final_prompt_sets(rows: Rows, num_prompts: int) -> list[PromptSet]:
    """The prompts of a model's final figures: held-out ones, and relations where the truth is known."""
    from components.data import scenes as world
    from components.evaluation.measurement import PromptSet

    sets = prompt_sets(rows, num_prompts)
    related = [found for scene in rows.scenes or () if (found := world.relation_prompt(scene))]
    related = related[: min(num_prompts, MAX_RELATION_PROMPTS)]
    if not related:
        return sets
    return [PromptSet(RELATIONS, [text for text, _ in related], [facts for _, facts in related]), *sets]


def raw_prompts(rows: Rows, num_prompts: int) -> PromptSet:
    """The held-out pictures' original captions as prompts, of which nothing is known but their words."""
    from components.evaluation.measurement import PromptSet

    return PromptSet("raw", [text for text in rows.texts["caption"] if text][:num_prompts])


def load_second_reader(ws: Workspace) -> Callable[[np.ndarray], Sequence[Scene]] | None:
    """What reads pictures independently of the attribute judge; None for a data set without ground truth."""
    from components.families.attribute_judge.sample import load_judge

    return load_judge(ws.model_folder("second_judge")).read if ws.dataset.has_ground_truth else None


def load_suites(ws: Workspace) -> dict[str, list[Prompt]]:
    """Prompt suites by name: the recipe's folder of published ones, and that of the scenes world for scenes."""
    from components.evaluation.prompts import read_scenes_suite, read_suites

    suites = {"scenes": read_scenes_suite(str(SCENES_SUITE))} if ws.dataset.has_ground_truth else {}
    return suites | (read_suites(ws.recipe.evaluation.suites) if ws.recipe.evaluation.suites else {})


def upsampler_settings(ws: Workspace) -> dict[str, Any] | None:
    """What decides upsampled prompts beside the T5, for fingerprints."""
    return ws.recipe.upsampler_endpoint and ws.recipe.upsampler_endpoint.identity()


def load_upsampler(ws: Workspace) -> Callable[[Sequence[str]], list[str]] | None:
    """What rewrites short prompts: an endpoint, else the T5; None where that is a hub's encoder, which cannot."""
    from components.families.prompt_upsampler.sample import load_upsampler as load

    if ws.recipe.upsampler_endpoint:
        from components.families.prompt_upsampler.endpoint import EndpointUpsampler

        return EndpointUpsampler(ws.recipe.upsampler_endpoint, ws.lake)
    if ws.recipe.prompt_upsampler.model.pretrained:
        return None
    return load(ws.model_folder("prompt_upsampler"))
