import numpy as np
import pytest

from components.data.scene_captions import dsc, prompt_facts, prompts, ssc
from components.data.scene_facts import facts_of, parse_facts
from components.data.scene_graph import Scene, scene_for
from components.data.scene_rendering import render
from components.evaluation.measurement import (
    Judges,
    PromptSet,
    Reference,
    evaluate_agreement,
    evaluate_captions,
    evaluate_decoded_generations,
    evaluate_decoder,
    evaluate_generation,
    evaluate_judge,
    evaluate_suite,
)

SCENES = [scene_for(index, 0) for index in range(60)]
PIXELS = render(SCENES, 32)
BY_PICTURE = {picture.tobytes(): scene for picture, scene in zip(PIXELS, SCENES, strict=True)}


def read(pixels: np.ndarray) -> list[Scene]:
    """Reads what was rendered and nothing else."""
    return [BY_PICTURE.get(picture.tobytes(), Scene((), "white")) for picture in pixels]


def image_embeds(pixels: np.ndarray) -> np.ndarray:
    return text_embeds([dsc(scene) if scene.objects else "" for scene in read(pixels)])


def text_embeds(texts: list[str]) -> np.ndarray:
    return np.stack([np.random.default_rng(list(text.encode())).normal(size=64) for text in texts])


def coarse(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, 8::16, 8::16].reshape(len(pixels), -1).astype(np.float32)


JUDGES = Judges(read, image_embeds, text_embeds, Reference.of(coarse, PIXELS))
DESCRIPTIVE = PromptSet(
    "descriptive", prompts("descriptive", SCENES), [prompt_facts("descriptive", scene) for scene in SCENES]
)


def test_pictures_of_the_prompts_themselves_are_perfect() -> None:
    figures = evaluate_generation(PIXELS, DESCRIPTIVE, JUDGES, model="oracle", decoder="vae")
    assert (figures.model, figures.prompts, figures.upsampled, figures.decoder) == (
        "oracle",
        "descriptive",
        False,
        "vae",
    )
    assert figures.num_prompts == 60
    measured = figures.model_dump(exclude_none=True)
    for name in ("scene_accuracy", "object_accuracy", "colour", "shape", "count", "place", "relation", "background"):
        assert measured[name]["value"] == 1
    assert measured["clip_score"]["value"] == pytest.approx(100)
    assert measured["retrieval_at_1"]["value"] == 1
    assert measured["fid"]["value"] == pytest.approx(0, abs=1e-3)
    assert "style" not in measured


def test_pictures_of_other_prompts_are_told_apart() -> None:
    figures = evaluate_generation(PIXELS[::-1].copy(), DESCRIPTIVE, JUDGES, model="raw", decoder="vae")
    assert figures.scene_accuracy is not None
    assert figures.scene_accuracy.value == 0
    assert figures.clip_score is not None
    assert abs(figures.clip_score.value) < 20
    assert figures.retrieval_at_1 is not None
    assert figures.retrieval_at_1.value < 0.1


def test_without_truth_what_needs_it_is_absent_and_the_rest_stays() -> None:
    judges = Judges(None, image_embeds, text_embeds, Reference.of(coarse, PIXELS))
    prompt_set = PromptSet("short", prompts("short", SCENES))
    measured = evaluate_generation(PIXELS, prompt_set, judges, model="raw", decoder="vae").model_dump(exclude_none=True)
    assert set(measured) == {
        "model", "prompts", "upsampled", "decoder", "num_prompts", "num_seeds", "is_study",
        "clip_score", "retrieval_at_1", "fid", "kid",
    }  # fmt: skip
    nothing = evaluate_generation(PIXELS, prompt_set, Judges(), model="raw", decoder="vae").model_dump(
        exclude_none=True
    )
    assert set(nothing) == {"model", "prompts", "upsampled", "decoder", "num_prompts", "num_seeds", "is_study"}


def test_true_captions_are_perfect_and_carry_their_rate() -> None:
    full = evaluate_captions(
        [dsc(scene) for scene in SCENES], PIXELS, JUDGES, scenes=SCENES, expected=[facts_of(scene) for scene in SCENES]
    )
    short = evaluate_captions(
        [ssc(scene) for scene in SCENES],
        PIXELS,
        JUDGES,
        scenes=SCENES,
        expected=[parse_facts(ssc(scene)) for scene in SCENES],
    )
    for figures in (full, short):
        assert figures.exact_match is not None
        assert figures.exact_match.value == 1
    assert full.clip_score is not None
    assert full.clip_score.value == pytest.approx(100)
    blind = evaluate_captions(["a", "b"], PIXELS[:2], Judges()).model_dump(exclude_none=True)
    assert set(blind) == {"mean_words", "distinct"}


def test_a_decoder_that_changes_nothing_is_perfect_and_one_that_blurs_is_not() -> None:
    perfect = evaluate_decoder(PIXELS, PIXELS, JUDGES, num_inference_steps=1, scenes=SCENES)
    blurred = ((PIXELS.astype(int) + np.roll(PIXELS, 1, 1) + np.roll(PIXELS, 1, 2)) // 3).astype(np.uint8)
    worse = evaluate_decoder(blurred, PIXELS, JUDGES, num_inference_steps=1, scenes=SCENES)
    for figures, psnr, detail, scene in ((perfect, 100, 1, 1), (worse, 35, 0.6, 0)):
        assert figures.psnr is not None
        assert figures.detail_ratio is not None
        assert figures.scene_accuracy is not None
        assert figures.psnr.value <= psnr
        assert figures.detail_ratio.value <= detail + 1e-9
        assert figures.scene_accuracy.value == scene
    assert perfect.psnr is not None
    assert perfect.psnr.value == 100
    generated = evaluate_decoded_generations(PIXELS, DESCRIPTIVE, JUDGES)
    assert generated.scene_accuracy is not None
    assert generated.scene_accuracy.value == 1


def test_the_judge_itself_is_judged_where_there_is_one() -> None:
    figures = evaluate_judge(JUDGES, PIXELS, SCENES)
    assert figures is not None
    assert figures.scene_accuracy is not None
    assert figures.scene_accuracy.value == 1
    assert evaluate_judge(Judges(), PIXELS, SCENES) is None


def test_every_prompt_needs_its_picture() -> None:
    with pytest.raises(ValueError, match="59 pictures for 60 prompts"):
        evaluate_generation(PIXELS[1:], DESCRIPTIVE, JUDGES, model="raw", decoder="vae")


def test_two_judges_agree_on_what_both_read() -> None:
    first = [scene_for(index, 1) for index in range(10)]
    second = [*first[:8], *(scene_for(index, 2) for index in (8, 9))]
    agreement = evaluate_agreement(first, second)
    assert agreement.scene_accuracy is not None
    assert agreement.scene_accuracy.value == 0.8
    assert agreement.background is not None
    assert agreement.background.num_samples == 10


def test_a_suite_is_measured_by_category_without_distances_to_real_pictures() -> None:
    scenes = [scene_for(index, 1) for index in range(6)]
    prompts = PromptSet("places", [dsc(scene) for scene in scenes], [facts_of(scene) for scene in scenes])
    judges = Judges(read=lambda pixels: scenes[: len(pixels)])
    figures = evaluate_suite(np.zeros((6, 8, 8, 3), np.uint8), prompts, judges, suite="scenes")
    assert (figures.suite, figures.category, figures.num_prompts) == ("scenes", "places", 6)
    assert figures.place is not None
    assert figures.place.value == 1.0
    published = PromptSet("color", ["a green bench"] * 6)
    assert evaluate_suite(np.zeros((6, 8, 8, 3), np.uint8), published, judges, suite="t2i").place is None
