"""The demo with the recipe ``smoke``, run once for all tests of this folder as a user would."""

from pathlib import Path

import pytest

from components.data.lake import Lake
from tests.command_line import run


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    done = run(["demo", "--recipe", "smoke"], folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture(scope="session")
def lake(home) -> Lake:
    return Lake(str(home / "lake"))
