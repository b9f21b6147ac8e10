"""``atelier lineage``, ``export`` and ``gc`` as a user meets them, and what the Dagster UI shows of lineage."""

import json
import logging
from pathlib import Path

import pytest

from components.pipeline.workspace import Outcome
from components.terminal import printable
from orchestration.cli import main
from orchestration.lake_commands import size
from orchestration.present import metadata_of
from tests.finished_lake import Finished, finished_lake


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    return finished_lake(tmp_path_factory.mktemp("home"))


@pytest.fixture
def say(finished: Finished, monkeypatch, capsys):
    """Run a subcommand on that lake: (exit status, standard output, standard error)."""
    home = Path(finished.ws.lake.root).parent
    monkeypatch.setenv("ATELIER_HOME", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"local:{home / 'tracker'}")
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    for name in ("ATELIER_DATASET", "ATELIER_RECIPE", "ATELIER_OVERRIDES"):
        monkeypatch.setenv(name, "")

    loggers = [logging.getLogger(name) for name in ("components", "orchestration")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]

    def run(command: str, *arguments: str) -> tuple[int, str, str]:
        status = main([command, "--dataset", "scenes", "--recipe", "smoke", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    yield run
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate  # in real life they end with the process
        logger.setLevel(level)


def key_of(finished: Finished) -> str:
    return finished.ws.lake.read_table(finished.made["raw_pairs[00000]"].path)["key"][5].as_py()


def test_a_row_is_told_in_words_and_for_programs(say, finished: Finished) -> None:
    key = key_of(finished)
    status, words, _ = say("lineage", "row", key)
    assert status == 0
    diffusion = finished.made["second_diffusion"]
    for expected in (f"row {key}", "source  ", "scenes://", f"{key} by ", str(diffusion.registry), "trained on"):
        assert expected in words
    assert max(map(len, words.splitlines())) < 250
    status, text, _ = say("lineage", "row", key, "--json")
    answer = json.loads(text)
    assert (status, answer["key"]) == (0, key)
    assert len(answer["captions"]) == 4
    assert {one["model"]["asset"] for one in answer["models"]} >= {"vae", "latent_diffusion"}


def test_every_question_has_words(say, finished: Finished, tmp_path: Path, monkeypatch) -> None:
    captioner = str(finished.made["first_dsc_captioner"].registry)
    uri = finished.made["raw_pairs[00001]"].metadata["uri"]
    picture = tmp_path / "picture.png"
    picture.write_bytes(finished.ws.lake.read_table(finished.made["raw_pairs[00000]"].path)["image"][5].as_py())
    for question, of, expected in (
        ("picture", str(picture), f"  {key_of(finished)}: "),
        ("source", uri, "24 rows in these parts"),
        ("captioner", captioner, "through prompt_upsampler"),
        ("model", "latent_diffusion", f"captions by: {finished.made['second_dsc_captioner'].registry}, "),
    ):
        status, words, _ = say("lineage", question, of)
        assert status == 0
        assert expected in words
    assert say("lineage", "opted-out")[1] == "the opt-out list names no row of this lake\n"
    (tmp_path / "list.jsonl").write_text(json.dumps({"key": key_of(finished), "reason": "\x1b[31mred"}))
    monkeypatch.setenv("ATELIER_OPT_OUT", str(tmp_path / "list.jsonl"))
    _, words, _ = say("lineage", "opted-out")
    assert "STILL IN THE IMAGE SET" in words
    assert str(finished.made["first_diffusion"].registry) in words
    assert "\x1b" not in words


def test_what_is_wrong_is_said_in_one_line(say, tmp_path: Path) -> None:
    for arguments, expected in (
        (("lineage", "row"), "atelier lineage row takes KEY"),
        (("lineage", "row", "nobody"), "has a row with the key 'nobody'"),
        (("lineage", "opted-out", "x"), "atelier lineage opted-out takes the rows"),
        (("export", str(tmp_path), "--shards", "00009"), "there is no shard 00009; there are 00000 to 00001"),
    ):
        status, _, error = say(*arguments)
        assert status == 1
        assert expected in error
        assert len(error.splitlines()) == 1


def test_an_export_says_what_left_and_what_stayed(say, tmp_path: Path) -> None:
    status, words, _ = say("export", str(tmp_path / "out"), "--format", "parquet")
    assert status == 0
    assert f"exported 46 rows with dsc captions in 2 shards to {tmp_path / 'out'}" in words
    assert "left out because its dsc was rejected: 2" in words
    assert ", 2 of them by an earlier run" in say("export", str(tmp_path / "out"), "--format", "parquet")[1]


def test_gc_lists_first_and_removes_when_told(say, finished: Finished) -> None:
    assert "nothing is left over" in say("gc")[1]
    finished.ws.lake.write_bytes("latents/00000/0123456789abcdef.parquet", b"x" * 2048)
    assert "younger than 24 h, a writer may be at work: 1 stay" in say("gc")[1]
    _, words, hint = say("gc", "--min-age-hours", "0", "--list")
    assert "would go, no record names it: 1 (2.0 KiB)" in words
    assert "latents/00000/0123456789abcdef.parquet" in words
    assert "nothing was removed; run it again with --delete" in hint
    assert "removed, no record names it: 1" in say("gc", "--min-age-hours", "0", "--delete")[1]
    assert "nothing is left over" in say("gc", "--min-age-hours", "0")[1]


def test_the_ui_shows_what_a_model_was_made_from(finished: Finished) -> None:
    shown = metadata_of(finished.ws, Outcome(finished.made["second_diffusion"], is_reused=False))
    for name in ("vae", "second_training_set", "image_set", "second_upsampler"):
        assert finished.made[name].data_version in shown["made_from"].value
    assert str(finished.made["second_dsc_captioner"].registry) in shown["captions_by"]
    assert (shown["sources"].value["shards"], shown["sources"].value["rows"]) == (2, 48)
    assert "made_from_lost" not in shown


def test_text_from_outside_cannot_drive_a_terminal() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed") == "a\\x1b[2Jb\\nc\\u202ed"
    assert len(printable("x" * 500)) == 160
    assert [size(n) for n in (0, 1023, 1536, 5 * 2**40)] == ["0 bytes", "1023 bytes", "1.5 KiB", "5.0 TiB"]
