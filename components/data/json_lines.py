"""Lists that people write by hand, one JSON object a line: examples, golden pictures, opt-outs.

What belongs here: from a file's text to checked rows, and errors that name file, line and field. What does not: where
the file lies, and what its rows mean together.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import TypeVar

from pydantic import BaseModel, ValidationError

Row = TypeVar("Row", bound=BaseModel)


def read_json_lines(
    name: str, data: bytes, row: type[Row], error: type[Exception], hint: str = ""
) -> Iterator[tuple[str, Row]]:
    """Each line's row behind its place (``<name>, line 3``); empty lines and those that begin with ``#`` are left out.

    Raises ``error`` for text that is not UTF-8 and for the first line that is no such row, naming the field; ``hint``
    says what a good one looks like.
    """
    ending = f"; {hint}" if hint else ""
    try:
        lines = io.StringIO(data.decode("utf-8-sig"), newline=None)  # JSON may hold what splitlines() takes for an end
    except UnicodeDecodeError as broken:
        raise error(f"{name}: it is not UTF-8 text: {broken}{ending}") from broken
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = f"{name}, line {number}"
        try:
            found = row.model_validate(json.loads(line))
        except ValidationError as invalid:
            first = invalid.errors()[0]
            field = ".".join(map(str, first["loc"]))
            said = first["msg"].removeprefix("Value error, ")
            raise error(f"{place}: {f'{field}: ' if field else ''}{said}{ending}") from invalid
        except ValueError as broken:
            raise error(f"{place}: it is not JSON: {broken}{ending}") from broken
        yield place, found
