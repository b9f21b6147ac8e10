"""Which shards a run would make now, and why: told from records and the states of sources, without making anything.

What belongs here: comparing what is on record with what a run would have. What does not: making it (``ingest``,
``captions``) and asking for it (``orchestration.automation``). Nothing here reads a picture or loads a model. What a
tick costs is opening the source: files are listed and their states asked for; of a folder, which has no files of rows,
the whole tree is listed and its caption files are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components.data.lake import CURRENT, Record
from components.data.storage import StorageError

from .captions import KINDS, caption_inputs, caption_settings
from .ingest import Intake, names_of
from .workspace import Workspace


@dataclass(frozen=True, slots=True)
class Due:
    """A shard that a run would make; ``fingerprint`` is what it would have then, ``reason`` says why for people.

    ``replaces`` tells what is on record now from all that ever was, None where there is nothing: a run that makes the
    shard changes it, one that fails does not.
    """

    shard: str
    fingerprint: str
    reason: str
    replaces: str | None = None


def due_pairs(ws: Workspace, intake: Intake) -> tuple[list[Due], dict[str, str]]:
    """Shards of ``raw_pairs`` that were never made, or whose source or settings have changed.

    Beside them, by shard, why its source does not answer: whether such a shard is due nobody can tell. Raises
    :class:`components.pipeline.workspace.UnfitParent` where the lake holds another data set's or recipe's rows.
    """
    made = ws.lake.records("raw_pairs")
    found: list[Due] = []
    unanswered = {}
    for shard in names_of(intake.reader):
        try:
            inputs = intake.inputs(shard)
        except (StorageError, FileNotFoundError) as error:
            unanswered[shard] = str(error)
            continue
        found += _due(ws, "raw_pairs", shard, inputs, intake.settings, made.get(shard))
    return found, unanswered


def due_captions(ws: Workspace) -> list[Due]:
    """Shards of ``recaptioned`` that are missing, or were written for other rows or by others than the champions.

    Shards of which there are no rows yet are left out. Raises :class:`components.pipeline.workspace.UnfitParent` where
    there are no champions yet, or the lake holds another data set's or recipe's rows.
    """
    champions, clip = ws.read_manifest("champion_captioners")[1], ws.parent("clip")
    settings, made = caption_settings(ws), ws.lake.records("recaptioned")
    found = []
    for shard, part in ws.lake.records("raw_pairs").items():
        ws.check_origin(part)
        inputs = caption_inputs(part, champions, clip)
        found += _due(ws, "recaptioned", shard, inputs, settings, made.get(shard), champions)
    return found


def _due(
    ws: Workspace,
    asset: str,
    shard: str,
    inputs: Mapping[str, str],
    settings: Any,
    record: Record | None,
    champions: Mapping[str, Any] | None = None,
) -> Iterator[Due]:
    fingerprint = ws.fingerprint(asset, inputs, settings)
    if record is not None:
        ws.check_origin(record)
    if record is None:
        yield Due(shard, fingerprint, "never made")
    elif record.fingerprint != fingerprint:
        written = ws.lake.modified(f"{ws.lake.place(asset, record.kind, shard)}/{CURRENT}")
        replaces = f"{record.data_version} of {written}"  # the same rows may come back, and be due again
        yield Due(shard, fingerprint, _why(record, inputs, champions or {}), replaces)


def _why(record: Record, inputs: Mapping[str, str], champions: Mapping[str, Any]) -> str:
    """What has changed since a record was made."""
    if record.inputs.get("source") != inputs.get("source"):
        return "its source has changed"
    if record.inputs.get("raw_pairs") != inputs.get("raw_pairs"):
        return "its rows have changed"
    writers = [record.metadata.get(f"{kind}_captioner") for kind in KINDS if champions]
    if writers != [champions[kind]["registry"] for kind in KINDS if champions]:
        return f"written by {' and '.join(map(str, writers))}"
    changed = sorted(name for name in inputs if record.inputs.get(name) != inputs[name])
    return f"another {', '.join(changed)}" if changed else "other settings or code"
