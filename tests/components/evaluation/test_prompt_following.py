from dataclasses import replace

from components.data.scene_captions import prompt_facts
from components.data.scene_facts import parse_facts
from components.data.scene_graph import Scene, SceneObject, scene_for
from components.evaluation.prompt_following import judge_accuracy, prompt_following

RED_CIRCLE = SceneObject("circle", "red", "large", "top left")
BLUE_STAR = SceneObject("star", "blue", "small", "bottom right")
SCENE = Scene((RED_CIRCLE, BLUE_STAR), "gray")


def values(following: object) -> dict[str, float]:
    return {
        name: figure.value
        for name in type(following).__dataclass_fields__
        if (figure := getattr(following, name)) is not None
    }


def test_a_picture_that_shows_its_prompt_is_right_in_everything_that_was_stated() -> None:
    descriptive = values(prompt_following([prompt_facts("descriptive", SCENE)], [SCENE]))
    assert set(descriptive.values()) == {1.0}
    stated = {
        "scene_accuracy",
        "object_accuracy",
        "shape",
        "colour",
        "size",
        "place",
        "count",
        "relation",
        "background",
    }
    assert set(descriptive) == stated
    assert set(values(prompt_following([prompt_facts("short", SCENE)], [SCENE]))) == {
        "scene_accuracy",
        "object_accuracy",
        "shape",
        "colour",
        "size",
    }


def test_swapped_colours_break_the_objects_but_not_their_places() -> None:
    swapped = Scene((replace(RED_CIRCLE, color="blue"), replace(BLUE_STAR, color="red")), "gray")
    measured = values(prompt_following([prompt_facts("descriptive", SCENE)], [swapped]))
    assert measured["colour"] == 0
    assert measured["object_accuracy"] == 0
    assert measured["scene_accuracy"] == 0
    assert measured["shape"] == measured["place"] == measured["count"] == measured["relation"] == 1


def test_a_wrong_size_breaks_the_scene_but_not_the_object() -> None:
    larger = Scene((RED_CIRCLE, replace(BLUE_STAR, size="large")), "gray")
    measured = values(prompt_following([prompt_facts("descriptive", SCENE)], [larger]))
    assert measured["object_accuracy"] == 1
    assert measured["size"] == 0.5
    assert measured["scene_accuracy"] == 0


def test_an_object_too_many_breaks_a_descriptive_prompt_and_not_a_short_one() -> None:
    more = Scene((RED_CIRCLE, BLUE_STAR, SceneObject("square", "green", "small", "top right")), "gray")
    assert values(prompt_following([prompt_facts("descriptive", SCENE)], [more]))["scene_accuracy"] == 0
    assert values(prompt_following([prompt_facts("short", SCENE)], [more]))["scene_accuracy"] == 1


def test_an_empty_picture_has_no_stated_object() -> None:
    measured = values(prompt_following([prompt_facts("descriptive", SCENE)], [Scene((), "gray")]))
    assert measured["background"] == 1
    assert {measured[name] for name in ("object_accuracy", "shape", "colour", "place", "relation")} == {0.0}


def test_objects_are_counted_over_all_prompts() -> None:
    one = Scene((RED_CIRCLE,), "gray")
    following = prompt_following(
        [parse_facts("large red circle top left"), prompt_facts("descriptive", SCENE)], [one, one]
    )
    assert following.object_accuracy is not None
    assert following.object_accuracy.num_samples == 3
    assert following.object_accuracy.value == 2 / 3
    assert following.relation is not None
    assert following.relation.value == 0


def test_a_judge_that_reads_everything_is_right_and_one_mistake_is_counted_once() -> None:
    truth = [scene_for(index, 0) for index in range(50)]
    assert set(values(judge_accuracy(truth, truth)).values()) == {1.0}
    read = [Scene((), truth[0].background), *truth[1:]]
    measured = judge_accuracy(truth, read)
    assert measured.scene_accuracy is not None
    assert measured.scene_accuracy.value == 0.98


def test_a_judge_that_sees_an_object_too_many_does_not_read_the_scene_exactly() -> None:
    more = Scene((RED_CIRCLE, BLUE_STAR, SceneObject("square", "green", "small", "top right")), "gray")
    measured = values(judge_accuracy([SCENE], [more]))
    assert measured["scene_accuracy"] == 0
    assert measured["count"] == 0
    assert measured["object_accuracy"] == 1


def test_prompts_for_a_single_object_are_counted_apart() -> None:
    one, other = Scene((RED_CIRCLE,), "gray"), Scene((BLUE_STAR,), "gray")
    prompts = [prompt_facts("descriptive", scene) for scene in (one, one, SCENE)]
    following = prompt_following([*prompts, prompt_facts("short", one)], [one, other, SCENE, other])
    assert following.one_object is not None
    assert (following.one_object.value, following.one_object.num_samples) == (0.5, 2)
