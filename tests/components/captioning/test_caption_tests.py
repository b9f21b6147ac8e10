import json
from dataclasses import replace

import pytest

from components.captioning.quality import QualityConfig, ShardQuality, problem_of, quality_of, repeated_phrase
from components.data import scenes

CONFIG = QualityConfig()


@pytest.mark.parametrize(
    ("caption", "problem"),
    [
        ("", "empty"),
        (" ... ", "empty"),
        ("a red red red circle", "repetition: 'red'"),
        ("large red circle top left, large red circle top left", "repetition: 'large red circle top left'"),
        ("circle and square and square and square and", "repetition: 'and square'"),
        ("heart: couple with heart with heart with heart", "repetition: 'with heart'"),
        ("hahahahahahaha", "repetition: 'ha'"),
        ("very " + " ".join(f"word{n}" for n in range(130)), "too_long: 131 words"),
        ("I'm sorry, but I cannot see a picture.", "refusal"),
        ("Unfortunately i’m not able to help with that", "refusal"),
        ("The image shows a red circle", "boilerplate"),
        ("red circle - free download", "boilerplate"),
        ("red circle https://example.org", "boilerplate"),
    ],
)
def test_a_bad_caption_is_named(caption, problem):
    assert problem_of(caption, CONFIG) == problem


@pytest.mark.parametrize(
    "caption",
    [
        "large red circle",
        "a very, very old house",
        "big red square top left, big red square top right, on a red background",
        "Ein roter Kreis links oben.",
        "赤い円と青い四角",
        "a can of beans, i can tell",
        "a photo album on a table",
        "light skin tone: light skin tone; skin tone; type 1",
        "holding hands: medium-light skin tone, light skin tone",
    ],
)
def test_a_good_caption_passes(caption):
    assert problem_of(caption, CONFIG) is None


def test_no_true_caption_of_the_world_is_rejected():
    drawn = [scenes.scene_for(index, 3) for index in range(300)]
    captions = [text for scene in drawn for text in (scenes.ssc(scene), scenes.dsc(scene))]
    assert [problem_of(caption, CONFIG) for caption in captions] == [None] * 600


def test_loops_of_up_to_twelve_words_are_found_anywhere():
    loop = [f"w{n}" for n in range(12)]
    assert repeated_phrase(["start", *loop, *loop]) == " ".join(loop)
    assert repeated_phrase([*loop, "end", *loop]) is None


def healthy(**changes) -> ShardQuality:
    quality = ShardQuality(
        num_rows=512,
        num_rejected=0,
        num_distinct=300,
        leading_article=0.1,
        lower_case=1.0,
        final_punctuation=0.0,
        mean_words=12.0,
        clip_score=40.0,
        shuffled_clip_score=20.0,
    )
    return replace(quality, **changes)


def test_a_healthy_shard_has_no_verdict():
    assert healthy().verdict(CONFIG, examples=healthy(num_rows=40)) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_rejected": 52, "first_problem": "empty"}, "10.2% of the captions are rejected"),
        ({"leading_article": 0.9}, "90.0% of the captions begin with an article"),
        ({"num_distinct": 1}, "only 1 distinct captions for 512 pictures"),
        ({"mean_words": 0.5}, "0.5 words on average"),
        ({"final_punctuation": 1.0}, "100.0% of the captions end with punctuation"),
        ({"shuffled_clip_score": 41.0}, "by -1.00 more than other pictures"),
    ],
)
def test_a_verdict_says_why_with_figures(changes, words):
    verdict = healthy(**changes).verdict(QualityConfig(max_final_punctuation_fraction=0.9))
    assert verdict is not None
    assert words in verdict


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lower_case": 0.2}, "lower_case holds for 20.0% of the captions and 100.0% of the examples"),
        ({"final_punctuation": 0.8}, "final_punctuation holds for 80.0%"),
        ({"mean_words": 30.0}, "30.0 words on average and the examples 12.0"),
        ({"mean_words": 6.0}, "6.0 words on average and the examples 12.0"),
    ],
)
def test_drift_from_the_examples_is_a_reason_only_where_they_are_given(changes, words):
    assert healthy(**changes).verdict(CONFIG) is None
    assert words in str(healthy(**changes).verdict(CONFIG, examples=healthy()))


@pytest.mark.parametrize(
    ("changes", "test", "words"),
    [
        (
            {"lengths": [0] * 30 + [512]},
            "captions_keep_their_length",
            "the lengths have moved by 1.00 against the prev",
        ),
        ({"lengths": [0] * 14 + [512]}, "captions_keep_their_length", "moved by 0.50"),
        ({"word_shares": {"red": 1.0, "circle": 0.5}}, "captions_use_known_words", "'red' stands in 100.0% of the cap"),
        ({"word_shares": {}}, "captions_use_known_words", "0.0% of the captions and 55.0% of the previous version"),
    ],
)
def test_drift_from_the_previous_version_is_told_by_its_test(changes, test, words):
    previous = healthy(lengths=[0] * 12 + [256, 0, 256], word_shares={"red": 0.3, "circle": 0.55})
    assert list(previous.complaints(CONFIG, previous=previous)) == []
    other = replace(previous, **changes)
    ((name, message),) = other.complaints(CONFIG, previous=previous)
    assert name == test
    assert words in message
    assert list(other.complaints(CONFIG)) == []


def test_words_that_no_text_has_are_counted_and_named():
    captions = ["red circle", "blurple circle", "blurple quare", "5 赤い円と青い四角"]
    quality = quality_of(captions, [], [], CONFIG, vocabulary={"red", "circle"})
    assert quality.invented == pytest.approx(3 / 8)
    assert quality.invented_words == ["blurple", "quare"]
    (complaint,) = quality.complaints(QualityConfig(min_clip_margin=-1, min_distinct=0))
    assert complaint[0] == "captions_use_known_words"
    assert "37.5% of the words stand in no text that the captioner learned from ('blurple', 'quare')" in complaint[1]
    assert quality_of(captions, [], [], CONFIG).invented == 0


def test_statistics_survive_a_record():
    quality = quality_of(["a red circle.", "Blue star"], [30.0, 40.0], [1.0, 2.0], CONFIG, vocabulary={"red"})
    assert ShardQuality(**json.loads(json.dumps(quality.as_json()))).as_json() == quality.as_json()


def test_the_statistics_count_what_they_say():
    captions = ["A red circle.", "blue star", "the Moon", "blue star", ""]
    quality = quality_of(captions, [30.0, 50.0], [10.0, 20.0], CONFIG)
    assert (quality.num_rows, quality.num_rejected, quality.num_distinct) == (5, 1, 4)
    assert quality.leading_article == pytest.approx(2 / 5)
    assert quality.lower_case == pytest.approx(3 / 5)
    assert quality.final_punctuation == pytest.approx(1 / 5)
    assert quality.mean_words == pytest.approx(9 / 5)
    assert (quality.clip_score, quality.shuffled_clip_score) == (40.0, 15.0)
    assert quality.first_problem == "empty"
