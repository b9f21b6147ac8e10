"""Lists that people write: what counts as a line, and what does not."""

import json

import pytest
from pydantic import BaseModel

from components.data.json_lines import read_json_lines


class Line(BaseModel):
    text: str


def texts(data: bytes) -> list[str]:
    return [row.text for _, row in read_json_lines("list.jsonl", data, Line, ValueError)]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a byte order mark"])
def test_lines_end_as_any_system_ends_them_and_nowhere_else(start: bytes, ending: str) -> None:
    wanted = ["one\u2028two", "three\x85four", "five\u2029six"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in wanted]
    assert texts(start + ending.join(["# a note", "", *lines]).encode()) == wanted


def test_a_broken_line_is_named_by_its_number() -> None:
    with pytest.raises(ValueError, match=r"list\.jsonl, line 3: it is not JSON"):
        texts('{"text": "a\u2028b"}\n\n{"text"\n'.encode())
