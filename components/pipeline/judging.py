"""What text-to-image models are measured with and on: the judges, held-out prompts, and a model's name by its captions.

What belongs here: choices that the report and the study of caption blends must share to be comparable. What does not:
metrics (``components.evaluation``) and what is measured when (``report``, ``study``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from components.contracts import Rows
from components.families.latent_diffusion.config import LatentDiffusionConfig

from .rows import subset
from .workspace import Workspace

if TYPE_CHECKING:
    from components.evaluation.measurement import Judges, PromptSet

PROMPT_KINDS = ("short", "descriptive")
SYNTHETIC_NAMES = {"truth_ssc": "oracle-ssc", "truth_dsc": "oracle"}


def blend_name(model: LatentDiffusionConfig) -> str:
    """The captions that a model learned from: ``raw``, ``ssc-95``, ``dsc-95``, ``oracle`` (true descriptions)."""
    if not model.synthetic_fraction:
        return "raw"
    share = round(100 * model.synthetic_fraction)
    return SYNTHETIC_NAMES.get(model.synthetic_kind) or f"{model.synthetic_kind}-{share}"


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


def raw_prompts(rows: Rows, num_prompts: int) -> PromptSet:
    """The held-out pictures' original captions as prompts, of which nothing is known but their words."""
    from components.evaluation.measurement import PromptSet

    return PromptSet("raw", [text for text in rows.texts["caption"] if text][:num_prompts])


def load_upsampler(ws: Workspace) -> Callable[[Sequence[str]], list[str]] | None:
    """What rewrites short prompts; None where the text encoder is a hub T5's, which cannot."""
    from components.families.prompt_upsampler.sample import load_upsampler as load

    if ws.recipe.prompt_upsampler.model.pretrained:
        return None
    return load(ws.model_folder("prompt_upsampler"))
