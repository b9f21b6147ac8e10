"""Page headers take no more work or memory than they have bytes."""

import tracemalloc

import pytest

from components.data.parquet_pages import _Compact

LIST_FIELD = 0x19  # field 1, a list
STRUCT_FIELD = 0x1C  # field 1, a struct


def lists_of(kind: int, count: int, num_bytes: int) -> bytes:
    """A struct of lists that say that they hold ``count`` elements each, and hold none."""
    length = bytearray()
    while count > 0x7F:
        length.append(count & 0x7F | 0x80)
        count >>= 7
    one = bytes([LIST_FIELD, 0xF0 | kind, *length, count])
    return one * (num_bytes // len(one))


@pytest.mark.parametrize("kind", [1, 2], ids=["true", "false"])
def test_a_list_of_booleans_takes_a_byte_each(kind: int) -> None:
    header = _Compact(bytes([LIST_FIELD, 0x30 | kind, 1, 2, 1, 0]))
    assert header.struct() == {1: None}
    assert header.position == 6


@pytest.mark.parametrize("kind", range(1, 13))
def test_lists_that_say_that_they_are_long_take_no_memory(kind: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(IndexError):
            _Compact(lists_of(kind, 10**9, 2**16)).struct()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("opening", [[0x19], [STRUCT_FIELD]], ids=["lists", "structs"])
def test_what_is_nested_too_deep_is_refused(opening: list[int]) -> None:
    with pytest.raises(IndexError, match="nested too deep"):
        _Compact(bytes(([LIST_FIELD] if opening == [0x19] else []) + opening * 5000)).struct()
