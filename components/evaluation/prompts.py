"""Prompt suites: GenEval, T2I-CompBench and PartiPrompts as they are distributed, and the suite of the scenes world.

What belongs here: reading their files from a folder or any fsspec URI. What does not: scoring pictures against them.
``datasets/prompts/README.md`` says where the files come from and under which licences.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import fsspec

GENEVAL_FILE = "geneval/evaluation_metadata.jsonl"
COMPBENCH_FOLDER = "t2i-compbench"
PARTI_FILE = "parti/PartiPrompts.tsv"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a suite. ``demands`` holds what the suite itself says the picture must show (GenEval's fields)."""

    text: str
    suite: str
    category: str
    demands: Mapping[str, Any] = field(default_factory=dict)


class UnreadablePrompts(ValueError):
    """A prompt file is missing or not in its published form; the message names file, line and what was expected."""


def read_suites(uri: str) -> dict[str, list[Prompt]]:
    """Every suite that lies under ``uri`` in its published layout, by name, in the files' order.

    UnreadablePrompts where none lies there.
    """
    readers: Mapping[str, tuple[str, Callable[[str], list[Prompt]]]] = {
        "geneval": (GENEVAL_FILE, read_geneval),
        "t2i-compbench": (COMPBENCH_FOLDER, read_compbench),
        "parti": (PARTI_FILE, read_parti),
    }
    fs, root = fsspec.url_to_fs(uri)
    found = {name: reader(uri) for name, (path, reader) in readers.items() if fs.exists(f"{root}/{path}")}
    if not found:
        wanted = ", ".join(path for path, _ in readers.values())
        raise UnreadablePrompts(f"{uri}: holds none of {wanted}; see datasets/prompts/README.md for where to get them")
    return found


def read_scenes_suite(path: str) -> list[Prompt]:
    """The suite of the scenes world: one object ``{"prompt": .., "category": ..}`` per line."""
    return [
        Prompt(row["prompt"].strip(), "scenes", row["category"]) for row in _json_lines(path, {"prompt", "category"})
    ]


def read_geneval(uri: str) -> list[Prompt]:
    """GenEval's ``evaluation_metadata.jsonl`` (Ghosh et al. 2023): tag, prompt, and what to include or exclude."""
    prompts = []
    for row in _json_lines(f"{uri.rstrip('/')}/{GENEVAL_FILE}", {"tag", "prompt"}):
        demands = {name: row[name] for name in ("include", "exclude") if name in row}
        prompts.append(Prompt(row["prompt"].strip(), "geneval", row["tag"], demands))
    return prompts


def read_compbench(uri: str) -> list[Prompt]:
    """T2I-CompBench's ``<category>_val.txt`` (Huang et al. 2023): one prompt per line.

    Some files have CRLF line ends, some no final line end, some a blank last line; all are accepted.
    """
    fs, root = fsspec.url_to_fs(uri)
    paths = sorted(fs.glob(f"{root}/{COMPBENCH_FOLDER}/*_val.txt"))
    if not paths:
        raise UnreadablePrompts(f"{uri}: holds no {COMPBENCH_FOLDER}/*_val.txt")
    prompts = []
    for path in paths:
        name = path.rsplit("/", 1)[-1]
        _, text = _text_at(uri, f"{COMPBENCH_FOLDER}/{name}")
        category = name.removesuffix("_val.txt")
        prompts += [Prompt(line.strip(), "t2i-compbench", category) for _, line in _filled_lines(text)]
    return prompts


def read_parti(uri: str) -> list[Prompt]:
    """PartiPrompts' ``PartiPrompts.tsv`` (Yu et al. 2022b): columns Prompt, Category, Challenge, Note.

    Quotation marks in it belong to the prompts (no quoting): a reader with the usual quoting rules loses rows.
    """
    path, text = _text_at(uri, PARTI_FILE)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    wanted = {"Prompt", "Category", "Challenge"}
    if not wanted <= set(rows.fieldnames or ()):
        raise UnreadablePrompts(f"{path}:1: columns are {rows.fieldnames}; expected {', '.join(sorted(wanted))}")
    prompts = []
    for row in rows:
        if not row["Prompt"] or not row["Category"]:
            raise UnreadablePrompts(f"{path}:{rows.line_num}: lacks Prompt or Category")
        prompts.append(Prompt(row["Prompt"].strip(), "parti", row["Category"], {"challenge": row["Challenge"]}))
    return prompts


def _json_lines(uri: str, fields: set[str]) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, each of which must hold ``fields``."""
    path, text = _text_at(*uri.rsplit("/", 1))
    for number, line in _filled_lines(text):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UnreadablePrompts(f"{path}:{number}: not JSON ({error.msg}); one object per line") from error
        missing = fields - set(row if isinstance(row, dict) else ())
        if missing:
            raise UnreadablePrompts(f"{path}:{number}: lacks {', '.join(sorted(missing))}")
        yield row


def _text_at(uri: str, name: str) -> tuple[str, str]:
    fs, root = fsspec.url_to_fs(uri)
    path = f"{root}/{name}"
    try:
        return path, fs.cat_file(path).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UnreadablePrompts(f"{path}: not found; see datasets/prompts/README.md for where to get it") from error
    except UnicodeDecodeError as error:
        raise UnreadablePrompts(f"{path}: byte {error.start} is not UTF-8") from error


def _filled_lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line
