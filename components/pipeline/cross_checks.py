"""What the report says beside its main figures: do judges agree, what of prompt suites, do upsampled prompts fit.

What belongs here: which pictures and texts are compared for it. What does not: metrics (``components.evaluation``) and
drawing the pictures (``report``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from components.data.scene_graph import Scene
    from components.evaluation.figures import JudgeFigures, SuiteFigures, UpsamplingFigures
    from components.evaluation.measurement import Judges, PromptSet
    from components.evaluation.prompts import Prompt
    from components.evaluation.report import Gallery
    from components.recipes.recipe import EvaluationConfig

    from .report import Sampled

Reader = Callable[[np.ndarray], Sequence["Scene"]]


class Readings:
    """What two judges read in the same generated pictures, by kind of prompt."""

    def __init__(self, first: Reader, second: Reader, samples: Sequence[Sampled]) -> None:
        self.samples = samples
        self.read = [(first(sampled.pixels["vae"]), second(sampled.pixels["vae"])) for sampled in samples]

    def agreement(self) -> dict[str, JudgeFigures]:
        """Of what the first judge reads, what the second reads too."""
        from components.evaluation.measurement import evaluate_agreement

        return {sampled.name: evaluate_agreement(*read) for sampled, read in zip(self.samples, self.read, strict=True)}

    def disagreements(self, num_shown: int) -> Gallery | None:
        """Pictures that the judges read differently, with both readings; None without any."""
        from components.evaluation.report import Gallery

        texts, pictures = [], []
        for sampled, (first, second) in zip(self.samples, self.read, strict=True):
            for number, scenes in enumerate(zip(first, second, strict=True)):
                if scenes[0] != scenes[1]:
                    words = [in_words(scene) for scene in scenes]
                    texts.append(f"{sampled.prompts.texts[number]} - first: {words[0]} - second: {words[1]}")
                    pictures.append(sampled.pixels["vae"][number])
        if not texts:
            return None
        title = f"Generated pictures that the two judges read differently ({len(texts)})"
        return Gallery(title, texts[:num_shown], {"generated": np.stack(pictures[:num_shown])})


def suite_figures(
    suites: Mapping[str, Sequence[Prompt]],
    draw: Callable[[PromptSet], np.ndarray],
    judges: Judges,
    num_prompts: int,
) -> Iterator[SuiteFigures]:
    """Each category of each prompt suite; what a prompt states is asked for in the suite of scenes alone.

    ``draw`` makes a picture for each prompt, uint8 (N, H, W, 3).
    """
    from components.data.scene_facts import parse_facts
    from components.evaluation.measurement import PromptSet, evaluate_suite

    for suite, prompts in suites.items():
        for category in dict.fromkeys(prompt.category for prompt in prompts):
            texts = [prompt.text for prompt in prompts if prompt.category == category][:num_prompts]
            facts = [parse_facts(text) for text in texts] if suite == "scenes" else None
            asked = PromptSet(category, texts, facts)
            yield evaluate_suite(draw(asked), asked, judges, suite=suite)


def upsampling_figures(
    samples: Sequence[Sampled], captions: Sequence[str], config: EvaluationConfig
) -> UpsamplingFigures | None:
    """Upsampled prompts beside the captions that the model was trained on; None where there are none."""
    from components.evaluation.upsampling import compare_upsampled

    written = [text for sampled in samples if sampled.is_upsampled for text in sampled.written]
    if not written or not captions:
        return None
    return compare_upsampled(
        written,
        captions,
        max_length_gap=config.max_upsampled_length_gap,
        min_known_words=config.min_upsampled_known_words,
    )


def in_words(scene: Any) -> str:
    """A judge's reading as a sentence."""
    from components.data import scenes as world

    return world.dsc(scene) if scene.objects else f"nothing on a {scene.background} background"
