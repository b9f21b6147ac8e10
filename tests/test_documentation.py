"""README, operations and deployment page: what they link to and tell to run is there."""

import argparse
import re
from pathlib import Path

import pytest

from orchestration.cli import _parser

ROOT = Path(__file__).parents[1]
OPERATIONS = ROOT / "deploy" / "OPERATIONS.md"
PAGES = [ROOT / "README.md", OPERATIONS, ROOT / "deploy" / "README.md"]
by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


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
    text = OPERATIONS.read_text()
    sections = anchors("\n".join(line for line in text.splitlines() if line.startswith("## ")))
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.endswith(") |")]
    listed = [anchor for row in rows for anchor in re.findall(r"\]\(#([^)]+)\)", row)]
    assert sorted(listed) == sorted(sections)


def told_commands(text: str) -> list[tuple[str, list[str]]]:
    """What a page tells to run of ours: each command with the options that are given to it."""
    lines = text.replace("\\\n", " ").splitlines()
    told = [
        match
        for line in lines
        for match in re.finditer(r"(?<![\w/.-])(?<!namespace )(?:\.venv/bin/)?atelier ([a-z][a-z-]*)([^`#|]*)", line)
    ]
    return [(match[1], re.findall(r"(?<!\S)--[a-z-]+", match[2])) for match in told]


@by_name
def test_every_command_exists_and_has_the_options_that_are_given_to_it(page):
    (commands,) = [a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)]
    told = told_commands(page.read_text())
    assert told
    for command, options in told:
        assert command in commands.choices, command
        assert set(options) <= set(commands.choices[command]._option_string_actions), (command, options)


def test_options_over_several_lines_are_seen():
    text = "atelier demo --dataset mine \\\n  --set 'a=b' --sett c  # --comment\n`atelier gc --delete` or --other"
    assert told_commands(text) == [("demo", ["--dataset", "--set", "--sett"]), ("gc", ["--delete"])]


@by_name
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    made = re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), flags=re.M)
    assert made
    assert set(made) <= targets
