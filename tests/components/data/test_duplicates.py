"""Copies across shards: the same rows are set aside however the data set is cut and in whatever order it is read."""

import io
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from components.data.duplicates import Looks, NearDuplicates, copies
from components.data.images import ImageLimits, NormalisedImage, normalise
from components.data.ingest import DuplicateRule
from components.data.perceptual_hash import hash_text

NEAR = NearDuplicates(max_distance=3, max_colour_difference=20)


def looks(rows: Mapping[str, tuple[str, str, int, int]], shards: Mapping[str, str], rule: DuplicateRule) -> Looks:
    """Rows by key: sha256, caption, hash and colour; in the order of their shards."""
    parts = []
    for shard in sorted(set(shards.values())):
        keys = sorted(key for key in rows if shards[key] == shard)
        columns = {
            "key": keys,
            "sha256": [rows[key][0] for key in keys],
            "caption": [rows[key][1] for key in keys],
            "perceptual_hash": [hash_text(rows[key][2]) for key in keys],
            "colours": [bytes([rows[key][3]] * 48) for key in keys],
        }
        parts.append((shard, columns))
    return Looks.of(iter(parts), rule)


def set_aside(
    rows: Mapping[str, tuple[str, str, int, int]],
    shards: Mapping[str, str],
    rule: DuplicateRule = "reject_same_caption",
    near: NearDuplicates | None = None,
) -> dict[str, str]:
    found = looks(rows, shards, rule)
    return {found.keys[row]: rejection.reason for row, rejection in copies(found, rule, near).items()}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("keep", {}), ("reject_same_caption", {"d"}), ("reject", {"b", "d"})],
)
def test_equal_pictures_are_told_by_rule(rule: DuplicateRule, expected: set[str]) -> None:
    rows = {"a": ("1", "x", 5, 0), "b": ("1", "y", 5, 0), "c": ("2", "x", 99, 0), "d": ("1", "x", 5, 0)}
    assert set(set_aside(rows, {"a": "1", "b": "0", "c": "0", "d": "0"}, rule)) == set(expected)


def test_near_copies_keep_the_smallest_key_and_chains_are_cut() -> None:
    a = 0xABCDEF0123456789
    rows = {
        "a": ("1", "", a, 100),
        "b": ("2", "", a ^ 0b111, 110),
        "c": ("3", "", a ^ 0b111000111, 105),  # near to b, which is not kept, and far from a
        "d": ("4", "", a ^ (1 << 63), 150),  # another colour
        "e": ("5", "", 0, 100),
        "f": ("6", "", 0, 100),  # flat pictures tell nothing
    }
    found = looks(rows, dict.fromkeys(rows, "0"), "keep")
    result = {found.keys[row]: rejection for row, rejection in copies(found, "keep", NEAR).items()}
    assert set(result) == {"b"}
    assert result["b"].detail == "3 bits from a"


def test_a_key_in_two_shards_belongs_to_the_first() -> None:
    columns = {"sha256": ["1"], "caption": [""], "perceptual_hash": ["0" * 16], "colours": [bytes(48)]}
    parts = [(shard, {"key": ["k"], **columns, "sha256": [shard]}) for shard in ("00000", "00001")]
    found = copies(Looks.of(iter(parts), "reject"), "reject", None)
    assert {row: rejection.reason for row, rejection in found.items()} == {1: "duplicate_key"}
    assert "shard 00000" in found[1].detail


ROW = st.tuples(
    st.sampled_from("123"),
    st.sampled_from("xy"),
    st.sampled_from([7, 6, 1 << 40, 7 << 40]),
    st.sampled_from([0, 9, 90]),
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), ROW, min_size=1), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_cut_into_shards_does_not_matter(rows: dict[str, tuple[str, str, int, int]], random) -> None:
    whole = set_aside(rows, dict.fromkeys(rows, "0"), "reject", NEAR)
    for _ in range(3):
        shards = {key: str(random.randrange(4)) for key in rows}
        assert set_aside(rows, shards, "reject", NEAR) == whole
    kept = [key for key in rows if key not in whole]
    assert len({rows[key][0] for key in kept}) == len(kept)


def brute_force(hashes: list[int], colours: list[int]) -> set[int]:
    kept: list[int] = []
    gone = set()
    for row, (look, colour) in enumerate(zip(hashes, colours, strict=True)):
        near = [
            other
            for other in kept
            if look and hashes[other] and (look ^ hashes[other]).bit_count() <= 3 and abs(colour - colours[other]) <= 20
        ]
        gone.add(row) if near else kept.append(row)
    return gone


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.sampled_from([0, 15, 40])), min_size=2, max_size=30), st.data())
@settings(max_examples=40)
def test_bands_find_what_comparing_all_pairs_finds(pairs: list[tuple[int, int]], data) -> None:
    hashes, colours = [look for look, _ in pairs], [colour for _, colour in pairs]
    for i in range(1, len(hashes)):
        for bit in data.draw(st.sets(st.integers(0, 63), max_size=5)):
            hashes[i] = (hashes[i - 1] if i % 2 else hashes[i]) ^ (1 << bit)
    rows = {f"{i:03d}": (str(i), "", hashes[i], colours[i]) for i in range(len(hashes))}
    found = set_aside(rows, dict.fromkeys(rows, "0"), "keep", NEAR)
    assert {int(key) for key in found} == brute_force(hashes, colours)


def test_a_picture_that_was_scaled_and_packed_again_is_a_near_copy_and_its_recoloured_twin_is_not() -> None:
    rng = np.random.default_rng(1)
    cells = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    coarse = cells.resize((120, 120), Image.Resampling.BICUBIC)
    red, green, blue = coarse.split()
    variants = {
        "a": coarse,
        "b": coarse.resize((90, 90), Image.Resampling.LANCZOS),
        "c": ImageEnhance.Brightness(coarse).enhance(0.97),
        "d": Image.merge("RGB", (blue, red, green)),
        "e": coarse.rotate(90),
    }
    columns: dict[str, list] = {name: [] for name in ("key", "sha256", "caption", "perceptual_hash", "colours")}
    for key, image in variants.items():
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=80)
        stored = normalise(sink.getvalue(), ImageLimits())
        assert isinstance(stored, NormalisedImage)
        values = (key, stored.sha256, "", stored.perceptual_hash, stored.colours)
        for name, value in zip(columns, values, strict=True):
            columns[name].append(value)
    found = copies(Looks.of(iter([("0", columns)]), "reject"), "reject", NearDuplicates())
    assert {columns["key"][row] for row in found} == {"b", "c"}
