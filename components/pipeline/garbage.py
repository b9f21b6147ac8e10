"""``atelier gc``: what lies in a lake and no record names any more.

What belongs here: deciding what is referenced, and removing the rest. What does not: how things come to lie there.

Everything that any record names is kept: its part, model folder or manifest, what stands beside it, and the records
themselves, so that lineage stays whole; so is the ledger of rollbacks. What is left over are parts of writers that were
killed, folders that were never recorded, files that were not finished, and checkpoints of trainings that did not go on.
With ``superseded`` the records themselves count only where they are current, where a registered model version rests on
them, or where such a record does.

Nothing younger than the age guard is touched: a running writer puts its parts down before the record that names them,
and makes those that it finds young again. Files whose names the lake does not make are left alone and counted.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from components.addresses import without_credentials
from components.data.lake import CURRENT, LATEST, PROBE, RECORD, Lake, Record
from components.data.storage import PARTIAL_NAME, FileInfo

from .ancestry import ancestry
from .champions import ASSET as CHAMPIONS
from .study import ASSET as STUDY
from .versions import CODE_VERSIONS
from .withdrawals import PLACE as ROLLBACKS
from .workspace import Workspace, kind_of

MIN_AGE_HOURS = 24.0
UNKNOWN = "unknown"
_UNFINISHED = re.compile(rf"(?:.*/)?{PARTIAL_NAME}(?:/.*)?")
_TRAINING = re.compile(r"(checkpoints/[\w-]+-[0-9a-f]{16})/.+")
_FOLDER = re.compile(rf"(.*?/(?:[0-9a-f]{{16}}|{PARTIAL_NAME}))/.+")
_PLACES = "|".join(["rejected", *(re.escape(Lake.place(asset, kind_of(asset))) for asset in CODE_VERSIONS)])
_NAMES = "|".join(
    (
        r"[0-9a-f]{16}(?:\.parquet|\.json|\.[\w-]+\.png|\.drawn\.npz|\.vocabulary\.txt|/.+)",
        rf".+{re.escape(RECORD)}",
        r"ssc/\d+,dsc/\d+\.[\w-]+\.png",  # beside the champions' records
    )
)
_OURS = re.compile(rf"(?:{_PLACES})/(?:[^/]+/)?(?:{_NAMES})")  # a lake may share its bucket with other things


class UnknownRegistry(RuntimeError):
    """The registry does not know the models in use, so it cannot say which old ones are registered."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or a version's folder that nothing names; ``why`` says what it is. ``modified`` as in ``FileInfo``."""

    path: str
    num_bytes: int
    modified: float | None
    why: str
    is_folder: bool


@dataclass(frozen=True, slots=True)
class Garbage:
    """What may go, what is too young to tell, what is not ours, and what was kept (number of files and bytes)."""

    leftovers: Sequence[Leftover]
    young: Sequence[Leftover]
    unknown: Sequence[str]
    num_kept: int
    kept_bytes: int


def find_garbage(
    ws: Workspace, *, min_age_hours: float = MIN_AGE_HOURS, superseded: bool = False, now: float | None = None
) -> Garbage:
    """What no record names. Raises :class:`components.data.lake.LakeError` where a manifest that is needed is lost."""
    lake, now = ws.lake, time.time() if now is None else now
    files = lake.files()  # before the records: what is put down later is younger than the guard
    named = _Named(ws, files, superseded=superseded)
    units: dict[str, list[str]] = {}
    for path in files:
        units.setdefault(_unit_of(path), []).append(path)
    old, young, unknown, kept = [], [], [], []
    for unit, paths in units.items():
        why = named.why_not(paths[0])
        if why is None:
            kept += paths
        elif why == UNKNOWN:
            unknown += paths
        else:
            num_bytes = sum(files[path].num_bytes for path in paths)
            modified = lake.modified(unit)
            leftover = Leftover(unit, num_bytes, modified, why, is_folder=unit != paths[0])
            is_old = modified is not None and now - modified >= min_age_hours * 3600
            (old if is_old else young).append(leftover)
    return Garbage(old, young, unknown, len(kept), sum(files[path].num_bytes for path in kept))


def remove(lake: Lake, garbage: Garbage) -> Iterator[Leftover]:
    """Remove what may go, yielding each thing that went; what was written again meanwhile stays."""
    for leftover in garbage.leftovers:
        with suppress(FileNotFoundError):  # another gc was here
            if lake.modified(leftover.path) == leftover.modified:
                (lake.remove_folder if leftover.is_folder else lake.remove)(leftover.path)
                yield leftover


def _unit_of(path: str) -> str:
    """What a file goes with: a folder of a version, of checkpoints or half written as a whole, any other file alone."""
    folder = _TRAINING.match(path) or _FOLDER.match(path)
    return folder[1] if folder else path


class _Named:
    """Every path that a kept record names, and folders below which everything is named."""

    def __init__(self, ws: Workspace, files: dict[str, FileInfo], *, superseded: bool) -> None:
        self.lake = ws.lake
        contents = self.lake.read_many([path for path in files if path.endswith((RECORD, f"/{CURRENT}"))])
        records = {path: Record(**json.loads(data)) for path, data in contents.items()}
        self.files: set[str] = set()
        self.folders: set[str] = set()
        kept = list(records.values())
        if superseded:
            current = [record for path, record in records.items() if path.endswith(CURRENT)]
            roots = current + _registered(ws, list(records.values()), current)
            kept = roots + [parent for root in roots for parent in ancestry(self.lake, root)[0]]
        for record in kept:
            self._name(record)
        self.files |= {path for path in records if path.endswith(CURRENT)}

    def _name(self, record: Record) -> None:
        folder = self.lake.place(record.asset, record.kind, record.shard)
        own = self.lake.record_path(record.asset, record.kind, record.data_version, record.shard)
        self.files |= {own, f"{folder}/{LATEST}", *record.pictures.values()}
        if record.metadata.get("rejected_path"):
            self.files.add(record.metadata["rejected_path"])
        if record.path:
            self.files.add(record.path)
            if record.kind in ("model", "report"):
                self.folders.add(record.path)
            if record.asset == CHAMPIONS:
                self.files.add(self.lake.read_json(record.path)["vocabulary"])
            if record.asset == STUDY:
                self.files.add(f"{record.path}.drawn.npz")
        if record.kind == "report":
            self.folders.add(f"{folder}/{LATEST}")

    def why_not(self, path: str) -> str | None:
        """None for what is named, else what it is."""
        name = path.rpartition("/")[2]
        if _UNFINISHED.fullmatch(path) or name.startswith(PROBE):
            return "not finished"
        if _TRAINING.fullmatch(path):
            return "of a training that did not go on"
        parts = path.split("/")
        if parts[0] == ROLLBACKS:
            return None
        if path in self.files or any("/".join(parts[:depth]) in self.folders for depth in range(1, len(parts))):
            return None
        if not _OURS.fullmatch(path):
            return UNKNOWN
        return "superseded" if name.endswith(RECORD) else "no record names it"


def _registered(ws: Workspace, records: Sequence[Record], current: Sequence[Record]) -> list[Record]:
    """The records whose folders a registered model version points at; the registry must know the current ones."""
    models = [record for record in records if record.kind == "model" and record.registry]
    names = {ws.registry_name(record.asset, record.shard) for record in models}
    versions = [version for name in sorted(names) for version in ws.tracker.versions(name)]
    known, uris = {str(version) for version in versions}, {version.uri for version in versions}
    lost = [record.registry for record in current if record in models and record.registry not in known]
    if lost:
        raise UnknownRegistry(
            f"the registry {without_credentials(str(ws.tracker.uri))} does not know {lost[0]}, which is in use: set "
            "MLFLOW_TRACKING_URI to the registry that this lake's models were registered in"
        )
    return [record for record in models if record.registry in known or ws.lake.uri(record.path) in uris]
