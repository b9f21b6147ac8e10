import json

import pytest

from components.captioning.golden import golden_complaint, golden_failures, golden_problem
from components.captioning.quality import QualityConfig
from components.data import scenes
from components.data.dataset_file import DatasetError
from components.data.golden import GoldenPicture, golden_of_scene, read_golden

BALLOON = GoldenPicture(key="1000", says=(("balloon",), ("red", "crimson")), never=("dog", "hot air"))


@pytest.mark.parametrize(
    ("caption", "problem"),
    [
        ("a red balloon", None),
        ("Crimson BALLOON, floating", None),
        ("a balloon", "does not say 'red' or 'crimson'"),
        ("a red balloonist", "does not say 'balloon'"),
        ("a red balloon and a dog", "says 'dog', which is false"),
        ("a red hot air balloon", "says 'hot air', which is false"),
        ("hot red balloon in the air", None),
    ],
)
def test_a_caption_is_asked_for_its_facts(caption, problem):
    assert golden_problem(caption, BALLOON) == problem


def test_a_complaint_names_picture_and_fact_and_spares_few_failures():
    pictures = [GoldenPicture(key=str(n), says=(("circle",),)) for n in range(20)]
    failures = golden_failures(["circle"] * 17 + ["square"] * 3, pictures)
    assert failures == {str(n): "does not say 'circle': 'square'" for n in (17, 18, 19)}
    complaint = golden_complaint(failures, 20, QualityConfig())
    assert complaint is not None
    assert "3 of 20 golden pictures failed" in complaint
    assert "picture 17 does not say 'circle': 'square'" in complaint
    assert golden_complaint(failures, 20, QualityConfig(max_golden_failures=0.15)) is None
    assert golden_complaint({}, 20, QualityConfig(max_golden_failures=0)) is None


def test_true_captions_of_scenes_pass_and_those_of_other_scenes_do_not():
    drawn = [scenes.scene_for(index, 4, scenes.SceneOptions(style=True, text=True)) for index in range(200)]
    write = {"ssc": scenes.ssc, "dsc": scenes.dsc}
    for number, scene in enumerate(drawn):
        other = drawn[number - 1]
        for golden in golden_of_scene(scenes.key_for(number), scene):
            assert golden_problem(write[golden.kind](scene), golden) is None
        if {scene.background} - {other.background}:
            assert golden_problem(scenes.dsc(other), golden_of_scene("k", scene)[1]) is not None


def test_a_file_of_golden_pictures_is_read(tmp_path):
    (tmp_path / "apple.png").write_bytes(b"x")
    lines = [
        {"key": "7", "says": ["apple", ["red", "green"]], "never": ["pear"]},
        {"picture": "apple.png", "kind": "ssc", "says": ["apple"]},
    ]
    (tmp_path / "golden.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    first, second = read_golden(tmp_path / "golden.jsonl")
    assert first.says == (("apple",), ("red", "green"))
    assert (first.name, second.name, second.kind) == ("7", "apple.png", "ssc")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", r"golden.jsonl, line 1: it is not JSON"),
        ('{"key": "7"}', "give facts: says, never or both"),
        ('{"says": ["a"]}', "give either the key of a row or the path of a picture"),
        ('{"key": "7", "says": [" "]}', "every fact must hold a phrase"),
        ('{"key": "7", "says": [[]]}', "every fact must hold a phrase"),
        ('{"key": "7", "sais": ["a"]}', "line 1: sais: "),
        ('{"picture": "gone.png", "says": ["a"]}', "picture: there is no file"),
        ("", "it holds no golden picture"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, words):
    (tmp_path / "golden.jsonl").write_text(line)
    with pytest.raises(DatasetError, match=words):
        read_golden(tmp_path / "golden.jsonl")
