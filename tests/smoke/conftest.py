"""The demo with the recipe ``smoke``, run once for all tests of this folder as a user would, and its servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.data.lake import Lake
from tests.browser import chromium, find_chromium
from tests.command_line import run
from tests.processes import left_of
from tests.servers import dev_server, page_server


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> tuple[Path, list[str]]:
    """The home of a finished demo, and the processes of it that were still there after the command had ended."""
    folder = tmp_path_factory.mktemp("home")
    done = run(["demo", "--recipe", "smoke"], folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, left_of(folder)


@pytest.fixture(scope="session")
def home(demo) -> Path:
    return demo[0]


@pytest.fixture(scope="session")
def lake(home) -> Lake:
    return Lake(str(home / "lake"))


@pytest.fixture(scope="session")
def urls(home: Path) -> Iterator[dict[str, str]]:
    """Addresses of the Dagster UI and the MLflow UI that ``atelier dev`` serves."""
    with dev_server(home, "smoke") as found:
        yield found


@pytest.fixture(scope="session")
def page_url(home: Path) -> Iterator[str]:
    """Address of the page that ``atelier page`` serves."""
    with page_server(home, "smoke") as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Headless Chromium. While it is open, nothing else may run an event loop of its own in this process."""
    executable = find_chromium()
    if executable is None:
        pytest.skip("there is no Chromium on the path (apt-get install chromium), and ATELIER_CHROMIUM names none")
    with chromium(executable) as opened:
        yield opened
