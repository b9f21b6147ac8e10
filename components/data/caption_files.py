"""Files that hold the captions of a whole folder of pictures: ``metadata.jsonl``, ``metadata.csv``, COCO's JSON.

What belongs here: streaming their entries within limits; a bad line costs that line. What does not: the pictures
(``folder_reader``).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any

from .sidecars import json_object
from .sources import MAX_TEXT_BYTES, Problem, first_named

FILE_NAMES = ("file_name", "filename", "file", "path", "image")  # fields that name the picture
CAPTION_FILES = ("metadata.jsonl", "metadata.csv", "captions.json")  # found without being told
MAX_COCO_BYTES = 512 * 2**20


class UnreadableCaptions(ValueError):
    """A whole file of captions cannot be trusted; the message says why."""


@dataclass(frozen=True, slots=True)
class CaptionEntry:
    """What a file says about one picture: its name there, relative to the file's folder, and its fields."""

    place: str  # line or entry, for messages
    file_name: str | None
    fields: dict[str, Any] = field(default_factory=dict)
    problem: Problem | None = None


def entries_of(name: str, file: IO[bytes]) -> Iterator[CaptionEntry]:
    """The entries of a file of captions, by the suffix of its name.

    Raises :class:`UnreadableCaptions` where the file as a whole is no good.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".jsonl":
        return _json_lines(file)
    if suffix == ".csv":
        return _csv_rows(file)
    if suffix == ".json":
        return _coco(file)
    raise UnreadableCaptions("captions lie in a .jsonl, a .csv or a .json file in COCO's form")


def _entry(place: str, fields: dict[str, Any]) -> CaptionEntry:
    named = first_named(FILE_NAMES, list(fields))
    name = fields[named] if named else None
    if not isinstance(name, str) or not name:
        problem = ("bad_metadata", f"{place}: no picture is named by {', '.join(FILE_NAMES)}")
        return CaptionEntry(place, None, fields, problem)
    return CaptionEntry(place, name, {key: value for key, value in fields.items() if key != named})


def _json_lines(file: IO[bytes]) -> Iterator[CaptionEntry]:
    for number, line in enumerate(_lines(file), 1):
        place = f"line {number}"
        if line is None:
            yield CaptionEntry(place, None, problem=_too_long(place))
        elif line.strip():
            loaded = json_object(line)
            if isinstance(loaded, dict):
                yield _entry(place, loaded)
            else:
                yield CaptionEntry(place, None, problem=("bad_metadata", f"{place}: {loaded}"))


def _csv_rows(file: IO[bytes]) -> Iterator[CaptionEntry]:
    """Rows under a heading. ``csv`` itself refuses fields of more than 128 KiB, so an open quote swallows no more."""
    too_long: list[int] = []
    rows = csv.reader(_csv_lines(file, too_long))
    heading: list[str] | None = None
    while True:
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            place = f"line {rows.line_num}"
            yield CaptionEntry(place, None, problem=("bad_metadata", f"{place}: {error}"))
            continue
        if heading is None:
            heading = row
            if first_named(FILE_NAMES, heading) is None:
                raise UnreadableCaptions(f"its first line names no column {', '.join(FILE_NAMES)}")
        elif row:
            yield _entry(f"line {rows.line_num}", dict(zip(heading, row, strict=False)))
    for number in too_long:
        yield CaptionEntry(f"line {number}", None, problem=_too_long(f"line {number}"))


def _csv_lines(file: IO[bytes], too_long: list[int]) -> Iterator[str]:
    for number, line in enumerate(_lines(file), 1):
        if line is None:
            too_long.append(number)
        else:  # surrogates stand for bytes that are not UTF-8; the caption's own check finds them
            yield line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")


def _too_long(place: str) -> Problem:
    return "bad_metadata", f"{place} has more than {MAX_TEXT_BYTES} bytes"


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """The lines of a file, None for one that is too long to be held."""
    while line := file.readline(MAX_TEXT_BYTES + 1):
        if len(line) <= MAX_TEXT_BYTES:
            yield line
            continue
        while not line.endswith(b"\n") and (line := file.readline(MAX_TEXT_BYTES)):
            pass
        yield None


def _coco(file: IO[bytes]) -> Iterator[CaptionEntry]:
    """COCO's ``{"images": [{id, file_name}], "annotations": [{image_id, caption}]}``, in either order.

    The text is held whole, its entries one at a time and the captions all.
    """
    data = file.read(MAX_COCO_BYTES + 1)
    if len(data) > MAX_COCO_BYTES:
        raise UnreadableCaptions(f"it has more than {MAX_COCO_BYTES} bytes; write a metadata.jsonl")
    captions: dict[Any, list[str]] = {}
    images: dict[Any, str] = {}
    bad: list[CaptionEntry] = []
    for section, number, entry in _sections(data.decode("utf-8", "surrogateescape")):
        place = f"{section}[{number}]"
        try:
            if section == "annotations":
                captions.setdefault(entry["image_id"], []).append(str(entry["caption"]))
            elif images.setdefault(entry["id"], str(entry["file_name"])) != str(entry["file_name"]):
                raise ValueError(f"id {entry['id']} stands twice")
        except (KeyError, TypeError, ValueError) as error:
            bad.append(CaptionEntry(place, None, problem=("bad_metadata", f"{place}: {type(error).__name__} {error}")))
    yield from bad
    for number, (image, name) in enumerate(images.items()):
        yield CaptionEntry(f"images[{number}]", name, {"captions": captions.pop(image, [])})
    for image in captions:
        place = f"annotations of {image!r}"
        yield CaptionEntry(place, None, problem=("bad_metadata", f"{place}: there is no such image"))


def _sections(text: str) -> Iterator[tuple[str, int, Any]]:
    """The entries of the lists ``images`` and ``annotations`` of a JSON object, one decoded at a time."""
    decoder, found = json.JSONDecoder(), set[str]()
    try:
        position = _expect(text, 0, "{")
        while not text.startswith("}", position):
            name, position = decoder.raw_decode(text, position)
            position = _expect(text, _blank(text, position), ":")
            if name in ("images", "annotations") and text.startswith("[", position):
                found.add(name)
                position, number = _expect(text, position, "["), 0
                while not text.startswith("]", position):
                    entry, position = decoder.raw_decode(text, position)
                    yield name, number, entry
                    position, number = _next(text, position, "]"), number + 1
                position += 1
            else:
                _, position = decoder.raw_decode(text, position)
            position = _next(text, position, "}")
    except (ValueError, RecursionError) as error:
        raise UnreadableCaptions(f"it is not valid JSON: {type(error).__name__}: {error}") from error
    if found != {"images", "annotations"}:
        raise UnreadableCaptions("it has no lists images and annotations, as COCO's form asks")


def _blank(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\r", "\n") and position < len(text):
        position += 1
    return position


def _expect(text: str, position: int, character: str) -> int:
    """The place of the next token behind ``character``."""
    position = _blank(text, position)
    if not text.startswith(character, position):
        raise ValueError(f"{character!r} expected at character {position}")
    return _blank(text, position + 1)


def _next(text: str, position: int, end: str) -> int:
    """The place behind a comma, or that of the closing bracket."""
    position = _blank(text, position)
    return position if text.startswith(end, position) else _expect(text, position, ",")
