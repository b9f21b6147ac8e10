"""Whether what is learned from and what is held out are apart, as later stages will read them.

What belongs here: measuring it on the tables that a manifest names. What does not: the split itself
(``data.catalog``) and setting rows aside (``data.duplicates``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .workspace import Workspace

NUM_NAMED = 3


def split_figures(ws: Workspace, images: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """What must not be found among the rows in use: keys that stand twice, pictures that are in both splits.

    ``images`` is the image set's manifest; ``paths`` are tables with ``key`` and ``sha256``, one for each of its
    shards and in its order of rows.
    """
    opted_out, keys = set(images["opted_out"]), set[str]()
    repeated, learned, held_out = set[str](), dict[str, str](), dict[str, str]()
    for entry, path in zip(images["shards"], paths, strict=True):
        table, set_aside = ws.lake.read_table(path, ["key", "sha256"]), set(entry["set_aside"])
        columns = (table["key"].to_pylist(), table["sha256"].to_pylist())
        for row, (key, sha256) in enumerate(zip(*columns, strict=True)):
            if row in set_aside or key in opted_out:
                continue
            (repeated if key in keys else keys).add(key)
            (held_out if ws.dataset.is_held_out(key) else learned).setdefault(sha256, key)
    shared = [key for sha256, key in learned.items() if sha256 in held_out]
    named = {"repeated": sorted(repeated)[:NUM_NAMED], "in_both_splits": sorted(shared)[:NUM_NAMED]}
    counts = {"repeated_keys": len(repeated), "pictures_in_both_splits": len(shared)}
    return {**counts, **{name: ", ".join(keys) for name, keys in named.items() if keys}}
