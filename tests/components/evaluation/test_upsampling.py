import numpy as np
import pytest

from components.data import scenes
from components.evaluation.measurement import Judges, PromptSet
from components.evaluation.upsampling import compare_upsampled
from components.pipeline.report import Sampled, _Evaluation
from orchestration.checks import check_results
from tests.records import record
from tests.workspaces import scenes_workspace

CAPTIONS = [scenes.dsc(scenes.scene_for(index, 0)) for index in range(400)]
LIMITS = {"max_length_gap": 0.5, "min_known_words": 0.9}


def test_captions_of_the_same_world_have_no_complaint():
    figures = compare_upsampled([scenes.dsc(scenes.scene_for(index, 7)) for index in range(100)], CAPTIONS, **LIMITS)
    assert figures.complaints == ()
    assert figures.known_words is not None
    assert figures.known_words.value == 1.0
    assert figures.length_gap < 0.2
    assert figures.clauses is not None
    assert figures.caption_clauses is not None
    assert figures.clauses.value == pytest.approx(figures.caption_clauses.value, abs=0.5)


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (["red circle"] * 20, "(mean 2.0 words) lie 1.00 from those of the captions (mean 14"),
        (
            ["a majestic sunset, painted lavishly, large red circle top left"] * 20,
            "(not: 'lavishly', 'majestic', 'painted', 'sunset')",
        ),
    ],
)
def test_prompts_of_another_kind_are_complained_of(prompts, words):
    figures = compare_upsampled(prompts, CAPTIONS, **LIMITS)
    assert any(words in complaint for complaint in figures.complaints)
    upsampling = figures.model_dump(mode="json")
    shown = record("evaluation_report", upsampling=upsampling, decoder_shortcomings=[], figures={})
    results = {result.check_name: result for result in check_results("evaluation_report", [shown])}
    result = results["upsampled_prompts_look_like_captions"]
    assert not result.passed
    assert result.severity.value == "WARN"
    assert words in result.metadata["complaints"].value


def test_the_judge_reads_the_prompt_that_the_user_wrote(tmp_path):
    """Upsampled prompts are what the model was asked, never what its pictures are scored against."""
    scored: list[str] = []

    def text_embeds(texts):
        scored.extend(texts)
        return np.eye(4)[np.arange(len(texts)) % 4]

    drawn = [scenes.scene_for(index, 0) for index in range(4)]
    facts = [scenes.prompt_facts("short", scene) for scene in drawn]
    prompts = PromptSet("short", scenes.prompts("short", drawn), facts)
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    sampled = Sampled(prompts, ["an upsampled prompt"] * 4, True, {"vae": pixels})
    evaluation = object.__new__(_Evaluation)
    evaluation.ws, evaluation.arms = scenes_workspace(tmp_path, {}), {}
    evaluation.judges = Judges(read=lambda _: drawn, image_embeds=lambda _: np.eye(4), text_embeds=text_embeds)
    (figures,) = evaluation.generation_figures([sampled])
    assert scored == list(prompts.texts)
    assert figures.upsampled
    assert figures.object_accuracy is not None
    assert figures.object_accuracy.value == 1.0
