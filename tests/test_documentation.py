"""README and operations page: what they link to and tell to run is there."""

import argparse
import re
from pathlib import Path

import pytest

from orchestration.cli import _parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "deploy" / "OPERATIONS.md"]
by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(text: str) -> list[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.M)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@by_name
def test_every_link_leads_somewhere(page):
    text = page.read_text()
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:href|src)="([^"]+)"', text)
    assert targets
    for target in targets:
        path, _, anchor = target.partition("#")
        if not path:
            assert anchor in anchors(text), target
        elif not path.startswith("http"):
            assert (page.parent / path).exists(), target


def test_the_operations_page_lists_every_section_of_its_own():
    text = PAGES[1].read_text()
    sections = anchors("\n".join(line for line in text.splitlines() if line.startswith("## ")))
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.endswith(") |")]
    listed = [anchor for row in rows for anchor in re.findall(r"\]\(#([^)]+)\)", row)]
    assert sorted(listed) == sorted(sections)


@by_name
def test_every_command_exists(page):
    (commands,) = [a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)]
    told = re.findall(r"(?<![\w/.-])(?:\.venv/bin/)?atelier ([a-z][a-z-]*)", page.read_text())
    assert set(told) <= set(commands.choices), set(told) - set(commands.choices)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    made = re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), flags=re.M)
    assert made
    assert set(made) <= targets
