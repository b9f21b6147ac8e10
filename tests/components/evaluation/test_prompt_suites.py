from pathlib import Path

import fsspec
import pytest

from components.data.scene_facts import parse_facts
from components.evaluation.prompts import (
    UnreadablePrompts,
    read_compbench,
    read_geneval,
    read_parti,
    read_scenes_suite,
    read_suites,
)
from components.pipeline.judging import SCENES_SUITE, load_suites
from tests.workspaces import scenes_workspace

SHARED = Path(__file__).parents[4] / "shared" / "data" / "prompts"

GENEVAL = (
    '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}\n'
    '{"tag": "counting", "include": [{"class": "bus", "count": 3}], "exclude": [{"class": "bus", "count": 4}],'
    ' "prompt": "a photo of three buses"}\n'
)
PARTI = (
    "Prompt\tCategory\tChallenge\tNote\n"
    'a wall with the words "Fly an airplane" on it\tOutdoor Scenes\tComplex\t\n'
    '"Peace" painted in red\tAbstract\tBasic\tstarts with a quote\n'
    'Dogs playing poker\tAnimals\tImagination\tDescription of "Dogs Playing Poker"\n'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("geneval", "parti", "t2i-compbench"):
        (tmp_path / name).mkdir()
    (tmp_path / "geneval" / "evaluation_metadata.jsonl").write_text(GENEVAL)
    (tmp_path / "parti" / "PartiPrompts.tsv").write_text(PARTI)
    (tmp_path / "t2i-compbench" / "color_val.txt").write_bytes(b"a green bench and a blue bowl\r\na black bath\r\n\r\n")
    (tmp_path / "t2i-compbench" / "numeracy_val.txt").write_bytes(b"two boys\nsix airplanes")
    (tmp_path / "t2i-compbench" / "LICENSE").write_text("MIT")
    return tmp_path


def test_the_suite_of_scenes_states_facts_of_its_categories() -> None:
    prompts = read_scenes_suite(str(SCENES_SUITE))
    assert {prompt.category for prompt in prompts} == {"counts", "colours", "shapes", "places", "relations"}
    assert len({prompt.text for prompt in prompts}) == len(prompts) > 90
    for prompt in prompts:
        facts = parse_facts(prompt.text)
        assert facts.objects or facts.count
        assert bool(facts.relations) == (prompt.category == "relations")
        if prompt.category == "places":
            assert all(item.place for item in facts.objects)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "scenes.jsonl").write_text('{"prompt": "a circle", "category": "shapes"}\n{"prompt": "a star"}\n')
    with pytest.raises(UnreadablePrompts, match=r"scenes.jsonl:2: lacks category"):
        read_scenes_suite(str(tmp_path / "scenes.jsonl"))


def test_geneval_keeps_what_a_picture_must_show(folder: Path) -> None:
    first, second = read_geneval(str(folder))
    assert (first.text, first.category) == ("a photo of a bench", "single_object")
    assert second.demands["exclude"] == [{"class": "bus", "count": 4}]


def test_compbench_reads_every_line_end(folder: Path) -> None:
    assert [(prompt.category, prompt.text) for prompt in read_compbench(str(folder))] == [
        ("color", "a green bench and a blue bowl"),
        ("color", "a black bath"),
        ("numeracy", "two boys"),
        ("numeracy", "six airplanes"),
    ]


def test_quotation_marks_of_parti_belong_to_the_prompts(folder: Path) -> None:
    prompts = read_parti(str(folder))
    assert [prompt.text for prompt in prompts] == [
        'a wall with the words "Fly an airplane" on it',
        '"Peace" painted in red',
        "Dogs playing poker",
    ]
    assert prompts[2].demands == {"challenge": "Imagination"}


def test_all_suites_of_a_folder_are_found_also_on_another_file_system(folder: Path) -> None:
    assert {name: len(prompts) for name, prompts in read_suites(str(folder)).items()} == {
        "geneval": 2,
        "t2i-compbench": 4,
        "parti": 3,
    }
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/suites/parti/PartiPrompts.tsv", PARTI.encode())
    assert list(read_suites("memory://suites")) == ["parti"]


def test_a_folder_without_suites_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadablePrompts, match=r"holds none of geneval/.*datasets/prompts/README.md"):
        read_suites(str(tmp_path))
    with pytest.raises(UnreadablePrompts, match=r"PartiPrompts.tsv: not found"):
        read_parti(str(tmp_path))


def test_a_broken_line_is_named_with_its_number(folder: Path) -> None:
    (folder / "geneval" / "evaluation_metadata.jsonl").write_text(GENEVAL + "{broken\n")
    with pytest.raises(UnreadablePrompts, match=r"evaluation_metadata.jsonl:3: not JSON"):
        read_geneval(str(folder))
    (folder / "geneval" / "evaluation_metadata.jsonl").write_text('{"tag": "counting"}\n')
    with pytest.raises(UnreadablePrompts, match=r":1: lacks prompt"):
        read_geneval(str(folder))
    (folder / "parti" / "PartiPrompts.tsv").write_text("Prompt,Category\nx,y\n")
    with pytest.raises(UnreadablePrompts, match=r"PartiPrompts.tsv:1: columns are"):
        read_parti(str(folder))
    (folder / "t2i-compbench" / "color_val.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UnreadablePrompts, match=r"color_val.txt: byte 3 is not UTF-8"):
        read_compbench(str(folder))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published prompt suites do not lie beside the repository")
def test_the_published_files_are_read_whole() -> None:
    suites = read_suites(str(SHARED))
    assert {name: len(prompts) for name, prompts in suites.items()} == {
        "geneval": 553,
        "t2i-compbench": 2400,
        "parti": 1632,
    }
    assert all(prompt.text == prompt.text.strip() and prompt.text for prompts in suites.values() for prompt in prompts)
    assert len({prompt.category for prompt in suites["geneval"]}) == 6
    assert len({prompt.category for prompt in suites["t2i-compbench"]}) == 8
    assert len({prompt.category for prompt in suites["parti"]}) == 12


def test_the_recipes_folder_adds_published_suites_to_that_of_the_data_set(folder: Path, tmp_path: Path) -> None:
    assert list(load_suites(scenes_workspace(tmp_path / "home", {}))) == ["scenes"]
    suites = load_suites(scenes_workspace(tmp_path / "home", {"evaluation.suites": str(folder)}))
    assert list(suites) == ["scenes", "geneval", "t2i-compbench", "parti"]
    assert suites["geneval"][1].category == "counting"
