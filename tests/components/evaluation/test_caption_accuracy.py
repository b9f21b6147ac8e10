from components.data.scene_captions import dsc, raw_caption, ssc
from components.data.scene_facts import facts_of, parse_facts
from components.data.scene_graph import Scene, SceneObject, scene_for
from components.evaluation.caption_accuracy import CaptionAccuracy, caption_accuracy, distinct_share, mean_words

SCENE = Scene(
    (SceneObject("circle", "red", "large", "top left"), SceneObject("star", "blue", "small", "bottom right")), "gray"
)  # 9 attributes
SCENES = [scene_for(index, 5) for index in range(300)]


def full(caption: str, scene: Scene = SCENE) -> tuple[float, float, float]:
    return values(caption_accuracy([caption], [scene], [facts_of(scene)]))


def short(caption: str, scene: Scene = SCENE) -> tuple[float, float, float]:
    return values(caption_accuracy([caption], [scene], [parse_facts(ssc(scene))]))


def values(accuracy: CaptionAccuracy) -> tuple[float, float, float]:
    """Attributes right, exact, made up; made up is -1 where nothing was stated."""
    assert accuracy.attribute_accuracy is not None
    assert accuracy.exact_match is not None
    made_up = -1.0 if accuracy.hallucination_rate is None else accuracy.hallucination_rate.value
    return accuracy.attribute_accuracy.value, accuracy.exact_match.value, made_up


def test_true_captions_are_right_exact_and_free_of_inventions() -> None:
    descriptive = caption_accuracy([dsc(s) for s in SCENES], SCENES, [facts_of(s) for s in SCENES])
    main = caption_accuracy([ssc(s) for s in SCENES], SCENES, [parse_facts(ssc(s)) for s in SCENES])
    assert values(descriptive) == (1, 1, 0)
    assert values(main) == (1, 1, 0)


def test_a_wrong_colour_is_one_attribute_and_one_invention() -> None:
    assert full("large green circle top left, small blue star bottom right, on a gray background") == (8 / 9, 0, 1 / 9)


def test_what_is_left_out_is_missing_but_not_invented() -> None:
    assert full("large red circle top left") == (4 / 9, 0, 0)
    assert full("IMG_2041.jpg") == (0, 0, -1)
    assert full("") == (0, 0, -1)


def test_an_object_that_is_not_there_is_invented() -> None:
    right, exact, made_up = full(f"{dsc(SCENE)}, a small green square top right")
    assert right == 1
    assert exact == 0
    assert made_up == 4 / 13


def test_a_short_caption_may_say_more_than_asked_if_it_is_true() -> None:
    assert short("large red circle top left") == (1, 1, 0)
    assert short("large red circle and a blue star") == (1, 1, 0)


def test_a_short_caption_of_the_wrong_subject_misses_the_subject() -> None:
    right, exact, made_up = short("small blue star")
    assert right < 0.5
    assert exact == 0
    assert made_up == 0  # it is there, though it is not the main subject


def test_a_wrong_relation_is_an_invention() -> None:
    _, exact, made_up = full(f"{dsc(SCENE)}, the star is left of the circle")
    assert made_up > 0
    assert exact == 0


def test_web_captions_say_little_and_partly_wrong() -> None:
    raw = [raw_caption(scene, index, 5) for index, scene in enumerate(SCENES)]
    right, exact, made_up = values(caption_accuracy(raw, SCENES, [facts_of(s) for s in SCENES]))
    assert 0.1 < right < 0.5
    assert exact < 0.05
    assert 0.01 < made_up < 0.2


def test_statistics_need_no_truth() -> None:
    words = mean_words(["one two three", "one"])
    distinct = distinct_share(["a", "a", "b", "a"])
    assert words is not None
    assert words.value == 2
    assert distinct is not None
    assert distinct.value == 0.5
    assert mean_words([]) is None
    assert distinct_share([]) is None
