"""Copies of pictures across shards: which rows of a data set are set aside, whatever shard they lie in.

What belongs here: the rule, and that no picture is learned from that is held out. What does not: copies within one
shard while it is read (``ingest``, by the same rule) and the hash that tells near copies (``perceptual_hash``).

The rule looks at all rows in the order of their keys, so it does not matter which shard was read first, or where a row
lies. A key that stands in several shards belongs to the first of them. Of equal pictures the one with the smallest key
is kept. A picture is a near copy if one with a smaller key that is itself kept differs in few bits of the perceptual
hash and little in colour: chains of small changes do not pull everything into one heap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pydantic import Field

from components.contracts import Frozen

from .images import COLOUR_CELLS, Rejection
from .ingest import DuplicateRule, duplicate_of, identity_of
from .perceptual_hash import FLAT, distances, parse_hash

HASH_BITS = 64


class NearDuplicates(Frozen):
    """When a picture is a near copy of another one."""

    max_distance: int = Field(default=4, ge=0, le=15, description="Most bits in which the perceptual hashes differ.")
    max_colour_difference: int = Field(
        default=24, ge=0, le=255, description="Largest difference of a channel in any cell of the 4x4 colour grids."
    )


@dataclass(frozen=True, slots=True)
class Looks:
    """What tells copies, of rows in the order of shards and of rows in a shard; columns of equal length."""

    keys: Sequence[str]
    shards: Sequence[str]
    pictures: Sequence[str]  # sha256
    identities: Sequence[bytes]
    hashes: np.ndarray  # uint64 (N,)
    colours: np.ndarray  # uint8 (N, 3 * COLOUR_CELLS**2)

    @classmethod
    def of(cls, shards: Iterator[tuple[str, Mapping[str, list]]], rule: DuplicateRule) -> Looks:
        """From each shard's columns key, sha256, caption, perceptual_hash and colours, batch by batch."""
        keys: list[str] = []
        names: list[str] = []
        pictures: list[str] = []
        identities: list[bytes] = []
        hashes: list[np.ndarray] = [np.zeros(0, np.uint64)]
        colours: list[bytes] = []
        for shard, columns in shards:
            keys += columns["key"]
            names += [shard] * len(columns["key"])
            pictures += columns["sha256"]
            pairs = zip(columns["sha256"], columns["caption"], strict=True)
            identities += [identity_of(sha256, caption, rule) for sha256, caption in pairs]
            hashes.append(np.array([parse_hash(text) for text in columns["perceptual_hash"]], dtype=np.uint64))
            colours += columns["colours"]
        grid = np.frombuffer(b"".join(colours), dtype=np.uint8).reshape(len(keys), 3 * COLOUR_CELLS**2)
        return cls(keys, names, pictures, identities, np.concatenate(hashes), grid)


def copies(looks: Looks, rule: DuplicateRule, near: NearDuplicates | None) -> dict[int, Rejection]:
    """The rows to set aside by their number, each with its reason.

    Reasons: ``duplicate_key``, ``duplicate_image``, ``near_duplicate``.
    """
    found: dict[int, Rejection] = {}
    first_with: dict[str, int] = {}
    for row, key in enumerate(looks.keys):
        if (first := first_with.setdefault(key, row)) != row:
            found[row] = Rejection("duplicate_key", f"the key stands in shard {looks.shards[first]} too")
    in_order = [first_with[key] for key in sorted(first_with)]
    if rule != "keep":
        kept: dict[bytes, int] = {}
        for row in in_order:
            if (first := kept.setdefault(looks.identities[row], row)) != row:
                found[row] = duplicate_of(looks.keys[first], rule)
    if near is not None:
        found |= _near_copies(looks, [row for row in in_order if row not in found], near)
    return found


def held_out_copies(
    looks: Looks, left_out: Collection[int], is_held_out: Callable[[str], bool]
) -> dict[int, Rejection]:
    """The rows whose pictures are held out for evaluation under another key, each with its reason.

    ``left_out`` are rows that are in neither split; ``is_held_out`` tells a key's split. Reason: ``held_out_image``.
    """
    rows = [row for row in range(len(looks.keys)) if row not in left_out]
    held_out = {looks.pictures[row]: looks.keys[row] for row in reversed(rows) if is_held_out(looks.keys[row])}
    return {
        row: Rejection("held_out_image", f"the same picture is held out for evaluation as {held_out[picture]}")
        for row in rows
        if (picture := looks.pictures[row]) in held_out and not is_held_out(looks.keys[row])
    }


def _near_copies(looks: Looks, in_order: Sequence[int], near: NearDuplicates) -> dict[int, Rejection]:
    """Near copies among rows in key order.

    Of two hashes that differ in at most d bits, one of d + 1 bands of bits is equal: only rows that share a band are
    compared.
    """
    found: dict[int, Rejection] = {}
    edges = np.linspace(0, HASH_BITS, near.max_distance + 2).round().astype(int).tolist()
    bands = [(low, (1 << (high - low)) - 1) for low, high in pairwise(edges)]
    kept: list[defaultdict[int, list[int]]] = [defaultdict(list) for _ in bands]
    for row in in_order:
        look = int(looks.hashes[row])
        if look == FLAT:
            continue
        buckets = [kept_in_band[look >> low & mask] for kept_in_band, (low, mask) in zip(kept, bands, strict=True)]
        candidates = np.array([one for bucket in buckets for one in bucket], dtype=np.int64)
        bits = distances(looks.hashes[candidates], look)
        colour = np.abs(looks.colours[candidates].astype(np.int16) - looks.colours[row].astype(np.int16)).max(
            axis=1, initial=0
        )
        alike = (bits <= near.max_distance) & (colour <= near.max_colour_difference)
        if alike.any():
            original = min(candidates[alike].tolist(), key=looks.keys.__getitem__)
            bits_apart = int(distances(looks.hashes[[original]], look)[0])
            found[row] = Rejection("near_duplicate", f"{bits_apart} bits from {looks.keys[original]}")
        else:
            for bucket in buckets:
                bucket.append(row)
    return found
