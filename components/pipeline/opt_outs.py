"""Which rows of the lake the opt-out list names.

What belongs here: matching the list against parts of raw_pairs. What does not: the list's form (``data.opt_outs``) and
leaving rows out (``ingest.build_image_set`` notes them, ``rows`` obeys).
"""

from __future__ import annotations

from collections.abc import Sequence

from components.data.lake import Record
from components.data.opt_outs import OptOut, OptOuts, read_opt_outs

from .workspace import Workspace


def opt_outs_of(ws: Workspace) -> OptOuts:
    """The data set's own list and that of the environment (``ATELIER_OPT_OUT``), read now."""
    return read_opt_outs(ws.dataset.opt_out_uris())


def opted_out(ws: Workspace, parts: Sequence[Record], opt_outs: OptOuts) -> list[dict[str, OptOut]]:
    """For each part of raw_pairs the opted-out rows: key, and the entry that names it."""
    if not opt_outs.entries:
        return [{} for _ in parts]
    columns = ["key", "sha256", "source_sha256", "perceptual_hash"]
    return [opt_outs.matches(ws.lake.read_known(part.path, columns)) for part in parts]
