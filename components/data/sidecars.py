"""A picture and the files beside it made into a row: ``.txt``, ``.json`` and ``.cls``, in a tar or in a folder.

What belongs here: what a row's parts mean together. What does not: where they lie and how they are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from components.contracts import SourceRow

from .sources import CAPTION_NAMES, IMAGE_SUFFIXES, CaptionRule, Problem, caption_of, license_of, text_of

TEXT_SUFFIXES = ("txt", "json", "cls")
_CAPTION_SUFFIX = re.compile(r"(?:(\d{1,4})\.)?txt")  # .txt, or .0.txt, .1.txt where there are several


def suffix_of_text(suffix: str) -> bool:
    """Whether a file with this suffix stands beside a picture and is read as text."""
    return suffix in TEXT_SUFFIXES or _CAPTION_SUFFIX.fullmatch(suffix) is not None


def row_of_parts(
    key: str,
    source: str,
    parts: Mapping[str, bytes],
    caption_name: str | None,
    rule: CaptionRule,
    problem: Problem | None = None,
) -> SourceRow:
    """The row of some parts by suffix. ``problem``: what is known to be wrong; else the first one found decides.

    ``caption_name`` is the suffix or the field of the ``.json`` that holds the caption; None: the ``.txt`` files, else
    the first field with a usual name.
    """
    suffix = next((suffix for suffix in IMAGE_SUFFIXES if suffix in parts), None)
    fields, found = fields_of(parts)
    if suffix is None:
        status = f"; status {fields['status']}: {fields.get('error_message')}" if "status" in fields else ""
        found = ("no_image", f"members {', '.join(sorted(parts)) or 'none'}{status}")
    try:
        caption = caption_of(_caption(parts, fields, caption_name), rule, key)
    except UnicodeDecodeError as error:
        caption, found = None, found or ("bad_caption", str(error))
    problem = problem or found
    image = parts[suffix] if suffix and problem is None else None
    return SourceRow(key, image, caption, source, license_of(fields), fields, problem)


def fields_of(parts: Mapping[str, bytes]) -> tuple[dict[str, Any], Problem | None]:
    """The fields of the ``.json`` and the ``.cls``."""
    fields: dict[str, Any] = {}
    problem = None
    if "json" in parts:
        loaded = json_object(parts["json"])
        if isinstance(loaded, dict):
            fields.update(loaded)
        else:
            problem = ("bad_metadata", f".json: {loaded}")
    if "cls" in parts:
        fields["cls"] = parts["cls"].decode("utf-8", "replace").strip()
    return fields, problem


def json_object(data: bytes | str) -> dict[str, Any] | str:
    """The fields of a JSON object, or what is wrong with it."""
    try:
        loaded = json.loads(data)
    except (ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    return loaded if isinstance(loaded, dict) else f"it holds a {type(loaded).__name__}, not an object"


def _caption(parts: Mapping[str, bytes], fields: Mapping[str, Any], name: str | None) -> Any:
    if name is not None:
        return text_of(parts[name]) if name in parts else fields.get(name)
    numbered = sorted(
        (int(match[1] or -1), suffix) for suffix in parts if (match := _CAPTION_SUFFIX.fullmatch(suffix)) is not None
    )
    if numbered:
        return [parts[suffix] for _, suffix in numbered]
    return next((fields[name] for name in CAPTION_NAMES if fields.get(name)), None)
