import re

import pytest

from components.data.scene_captions import (
    NOISE,
    Noise,
    dsc,
    prompt_facts,
    prompts,
    raw_caption,
    raw_kind,
    relation_prompt,
    ssc,
)
from components.data.scene_facts import Facts, StatedObject, facts_of, matches, parse_facts
from components.data.scene_graph import PLAIN, Scene, SceneObject, SceneOptions, scene_for

EVERYTHING = SceneOptions(style=True, text=True)
EXAMPLE = Scene(
    (
        SceneObject("star", "blue", "small", "bottom right"),
        SceneObject("circle", "red", "large", "top left"),
    ),
    "gray",
)


def test_the_true_captions_follow_their_templates() -> None:
    assert dsc(EXAMPLE) == "large red circle top left, small blue star bottom right, on a gray background"
    assert ssc(EXAMPLE) == "large red circle"
    word = SceneObject("text", "green", "small", "top right", text="AB")
    outlined = SceneObject("square", "red", "small", "top left", "outlined")
    assert dsc(Scene((word, outlined), "pink")) == (
        'small outlined red square top left, small green text "ab" top right, on a pink background'
    )
    assert dsc(Scene((), "pink")) == "on a pink background"


def test_true_captions_begin_without_an_article_in_lower_case_and_end_without_a_stop() -> None:
    for index in range(500):
        for caption in (dsc(scene_for(index, 0, EVERYTHING)), ssc(scene_for(index, 0, EVERYTHING))):
            assert re.fullmatch(r"(large|small) [a-z\", ]+[a-z\"]", caption), caption


@pytest.mark.parametrize(("options", "num_scenes"), [(PLAIN, 2500), (EVERYTHING, 500)])
def test_true_captions_are_read_back_exactly(options: SceneOptions, num_scenes: int) -> None:
    for index in range(num_scenes):
        scene = scene_for(index, 1, options)
        truth = facts_of(scene)
        assert parse_facts(dsc(scene)) == Facts(truth.objects, truth.background)
        assert parse_facts(ssc(scene)) == prompt_facts("short", scene)


def test_prompts_are_the_true_captions() -> None:
    assert prompts("short", [EXAMPLE]) == [ssc(EXAMPLE)]
    assert prompts("descriptive", [EXAMPLE, EXAMPLE]) == [dsc(EXAMPLE)] * 2
    assert prompt_facts("descriptive", EXAMPLE) == facts_of(EXAMPLE)
    with pytest.raises(ValueError, match="kind='long': expected one of short, descriptive"):
        prompts("long", [EXAMPLE])  # pyright: ignore[reportArgumentType]


# -------------------------------------------------------------------------------------------------------- raw captions
def test_web_noise_is_as_documented_and_every_row_of_the_table_adds_up() -> None:
    assert NOISE["web"] == {"full": 0, "main": 40, "partial": 25, "wrong": 15, "irrelevant": 20}
    assert {sum(kinds.values()) for kinds in NOISE.values()} == {100}


@pytest.mark.parametrize("noise", ["low", "web", "high"])
def test_kinds_of_raw_captions_come_in_their_shares(noise: Noise) -> None:
    kinds = [raw_kind(index, 0, noise) for index in range(20_000)]
    for kind, percent in NOISE[noise].items():
        assert 100 * kinds.count(kind) / len(kinds) == pytest.approx(percent, abs=1.0), kind


@pytest.mark.parametrize(("options", "num_scenes"), [(PLAIN, 1000), (EVERYTHING, 300)])
@pytest.mark.parametrize("noise", ["low", "web", "high"])
def test_each_kind_says_of_its_scene_what_it_promises(noise: Noise, options: SceneOptions, num_scenes: int) -> None:
    seen = set()
    for index in range(num_scenes):
        scene = scene_for(index, 0, options)
        caption, kind = raw_caption(scene, index, 0, noise), raw_kind(index, 0, noise)
        facts, truth = parse_facts(caption), facts_of(scene)
        num_wrong = sum(not holds for _, holds in matches(facts, scene).verdicts())
        is_whole = (facts.objects, facts.background) == (truth.objects, truth.background)
        says_objects = len(facts.objects) > 0 and all(stated.shape for stated in facts.objects)
        kept = {
            "full": is_whole and num_wrong == 0,
            "main": says_objects and len(facts.objects) == 1 and facts.background is None and num_wrong == 0,
            "partial": says_objects and not is_whole and num_wrong == 0,
            "wrong": says_objects and num_wrong == 1,
            "irrelevant": facts == Facts(),
        }
        assert kept[kind], (kind, caption, scene)
        seen.add(kind)
    assert seen == {kind for kind, percent in NOISE[noise].items() if percent}


def test_main_captions_name_the_main_subject_often_without_colour_or_place() -> None:
    rows = [(index, scene_for(index, 0)) for index in range(4000) if raw_kind(index, 0, "web") == "main"]
    stated = [parse_facts(raw_caption(scene, index, 0)).objects[0] for index, scene in rows]
    assert all(said.shape == scene.main.shape for said, (_, scene) in zip(stated, rows, strict=True))
    for name, share in (("color", 0.5), ("size", 0.3), ("place", 0.3)):
        found = sum(getattr(said, name) is not None for said in stated) / len(stated)
        assert found == pytest.approx(share, abs=0.05), name


def test_raw_captions_vary_in_case_punctuation_and_wording_as_on_the_web() -> None:
    captions = [raw_caption(scene_for(index, 0), index, 0) for index in range(3000)]
    dress = [r"^[A-Z ]+$", r"^[a-z ]+$", r"^([A-Z][a-z]+ )+[A-Z][a-z]+$", r"\.$", r"!$", r"\.jpg$", r"^an? "]
    words = [r"(?i)grey", r"(?i)violet", r"(?i)huge", r"(?i)upper", r"(?i)left of", r"(?i)shapes: ", r"\d\d/"]
    for pattern in dress + words:
        assert sum(bool(re.search(pattern, caption)) for caption in captions) >= 3, pattern
    assert len(set(captions)) > 1500


def test_a_raw_caption_depends_on_its_row_alone() -> None:
    scene = scene_for(5, 0)
    assert raw_caption(scene, 5, 0) == raw_caption(scene, 5, 0)
    assert len({raw_caption(scene, index, 0, "low") for index in range(40)}) > 20
    with pytest.raises(ValueError, match="noise='none': expected one of low, web, high"):
        raw_caption(scene, 5, 0, "none")  # pyright: ignore[reportArgumentType]


# -------------------------------------------------------------------------------------------------------- facts, parser
def test_facts_of_a_scene_are_complete() -> None:
    assert facts_of(EXAMPLE) == Facts(
        (StatedObject("circle", "red", "large", "top left"), StatedObject("star", "blue", "small", "bottom right")),
        "gray",
        (("left of", 0, 1), ("above", 0, 1), ("right of", 1, 0), ("below", 1, 0)),
        2,
    )


said = StatedObject
STAR, CIRCLE = said("star"), said("circle")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A RED Circle!", Facts((said("circle", "red"),))),
        ("small_blue-star.png", Facts((said("star", "blue", "small"),))),
        ("huge, violet triangle", Facts((said("triangle", "purple", "large"),))),
        ("circle (red) in the upper left corner", Facts((said("circle", "red", place="top left"),))),
        ("lower right: a tiny star", Facts((said("star", size="small", place="bottom right"),))),
        ("a red object top left", Facts((said(None, "red", place="top left"),))),
        ("star on grey", Facts((STAR,), "gray")),
        ("black backdrop with a star", Facts((STAR,), "black")),
        ("star. Background: white", Facts((STAR,), "white")),
        ("circle on red star", Facts((CIRCLE, said("star", "red")))),
        ("white circle on a red background", Facts((said("circle", "white"),), "red")),
        ("a circle to the left of the star", Facts((CIRCLE, STAR), None, (("left of", 0, 1),))),
        ("red star above blue star", Facts((said("star", "red"), said("star", "blue")), None, (("above", 0, 1),))),
        ("3 coloured shapes: star and circle", Facts((STAR, CIRCLE), count=3)),
        ("two green squares", Facts((said("square", "green"),) * 2)),
        ("red star blue circle top left",
         Facts((said("star", "red"), said("circle", "blue", place="top left")))),
        ('red text "ab" bottom left', Facts((said("text", "red", place="bottom left", text="AB"),))),
        ("striped star near outlined circle",
         Facts((said("star", style="striped"), said("circle", style="outlined")))),
        ("Black Friday! Free shipping on orders over $50, left of the bin", Facts()),
        ("IMG_0012.JPG", Facts()),
        ("", Facts()),
    ],
)  # fmt: skip
def test_free_phrases_are_read(text: str, expected: Facts) -> None:
    assert parse_facts(text) == expected


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("large red circle top left, small blue star bottom right, on a gray background", []),
        ("blue star, red circle", []),
        ("blue circle top left, red star bottom right", ["color", "color"]),
        ("small red circle", ["size"]),
        ("green star on white", ["color", "background"]),
        ("circle below star", ["relation"]),
        ("star right of circle", []),
        ("star and star", ["shape"]),
        ("three shapes: star", ["count"]),
        ("striped star", ["style"]),
        ('text "ab"', ["shape", "text"]),
        ("red circle, blue star, green square", ["shape", "color"]),
        ("large red circle above large red circle", ["shape", "color", "size"]),
        ("buy now", []),
    ],
)
def test_exactly_the_false_facts_fail(text: str, wrong: list[str]) -> None:
    match = matches(parse_facts(text), EXAMPLE)
    assert sorted(name for name, holds in match.verdicts() if not holds) == sorted(wrong)
    assert match.holds == (not wrong)


def test_objects_are_matched_one_to_one_whatever_their_order() -> None:
    match = matches(parse_facts("blue star, red circle, star"), EXAMPLE)
    assert match.assignment == (1, 0, None)
    assert match.objects == ({"shape": True, "color": True}, {"shape": True, "color": True}, {"shape": False})
    assert (match.background, match.relations, match.count) == (None, (), None)


def test_a_whole_scene_holds_of_itself_and_of_no_other() -> None:
    scenes = [scene_for(index, 2) for index in range(60)]
    for one in scenes:
        for other in scenes:
            assert matches(facts_of(one), other).holds == (one == other)
            subjects = {(item.shape, item.color, item.size) for item in other.objects}
            has_subject = (one.main.shape, one.main.color, one.main.size) in subjects
            assert matches(prompt_facts("short", one), other).holds == has_subject


def test_a_relation_prompt_states_a_true_relation_and_no_place():
    drawn = [scene_for(index, 6) for index in range(300)]
    found = [(scene, relation) for scene in drawn if (relation := relation_prompt(scene))]
    assert len(found) > 150
    assert all(len(scene.objects) > 1 for scene, _ in found)
    for scene, (text, facts) in found:
        assert parse_facts(text) == facts
        assert matches(facts, scene).holds
        assert len(facts.relations) == 1
        assert not any(item.place for item in facts.objects)
    assert {facts.relations[0][0] for _, (_, facts) in found} == {"left of", "above"}
