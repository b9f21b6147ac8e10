"""A report names the code that made it, and is made as well where nobody can tell which."""

import subprocess
from pathlib import Path

import pytest

from components.pipeline.provenance import VARIABLE, git_commit


def test_a_checkout_says_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is no checkout")
    assert git_commit() == done.stdout.strip()


def test_without_git_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # as in the image
    assert git_commit() is None


def test_an_image_says_what_it_was_built_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(VARIABLE, "0123abc")
    assert git_commit() == "0123abc"
    monkeypatch.setenv(VARIABLE, "")  # built without the argument
    assert git_commit() is None
