"""Taking a champion back: an earlier version takes its place, and the one that left is not promoted again by itself.

What belongs here: which versions there are to return to, and moving what names the version in use. What does not: the
ledger (``withdrawals``), gates (``champions``, ``report``), and telling Dagster (``orchestration.rollback``).

What names the version in use differs:

- ``latent_diffusion`` and ``consistency_decoder`` have a gate, so the registry's alias ``champion`` names it; the
  record in the lake goes on naming the newest candidate.
- ``champion_captioners`` names two captioners; its record moves, and both their aliases.
- Every other model is in use from the moment it is trained: its record in the lake moves, and its alias.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from components.contracts import ModelVersion
from components.data.lake import Record

from .captions import KINDS
from .champions import ASSET as CHAMPIONS
from .train import STAGES
from .withdrawals import Rollback, note, withdrawn
from .workspace import UnfitParent, Workspace, kind_of

GATED_BY_REPORT = ("latent_diffusion", "consistency_decoder")
CAPTIONERS = tuple(f"{kind}_captioner" for kind in KINDS)
ASSETS = (CHAMPIONS, *(asset for asset in (*STAGES, "text_encoder") if asset not in CAPTIONERS))


class NothingToReturnTo(ValueError):
    """There is no earlier champion, or none of the given name; the message lists what there is."""


def roll_back(ws: Workspace, asset: str, to: str | None = None, *, by: str, why: str = "") -> Rollback:
    """Put the champion before this one (or the version that ``to`` names) in use again; what was done.

    ``to``: a registry version (``3`` or ``name/3``) or a data version of the lake, also of a version that never was
    champion. Repeating a rollback that broke off completes it (the ledger then has it twice). Raises
    :class:`NothingToReturnTo`, UnfitParent where there is no champion at all, ValueError for an asset that has none.
    """
    if asset in CAPTIONERS:
        raise ValueError(f"{asset} and its twin become champions together: roll back {CHAMPIONS}")
    if asset not in ASSETS:
        raise ValueError(f"{asset} has no champion; what can be rolled back is {', '.join(ASSETS)}")
    ws.lake.check_writable()
    current = in_use(ws, asset)
    target = _named(ws, asset, to) if to else _before(ws, asset, current)
    if target.data_version == current.data_version:
        raise NothingToReturnTo(f"{asset} {version_of(target)} is in use already")
    if not ws.lake.exists(target.path):
        raise NothingToReturnTo(f"the files of {asset} {version_of(target)} are gone from {ws.lake.uri(target.path)}")
    left, back = _models(ws, current), _models(ws, target)
    changed = [name for name in back if left[name].data_version != back[name].data_version]
    done = Rollback(
        asset=asset,
        from_version=version_of(current),
        to_version=version_of(target),
        withdrawn={name: left[name].data_version for name in changed},
        reinstated={name: back[name].data_version for name in back},
        fingerprint="" if asset in GATED_BY_REPORT else current.fingerprint,
        by=by,
        at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        why=why,
    )
    note(ws.lake, done)  # first: a gate that runs meanwhile must know
    for name in changed:
        ws.tracker.set_tags(left[name].registered, {"withdrawn": str(done)})
        ws.tracker.set_tags(back[name].registered, {"reinstated": f"{done.from_version} was {done}"})
    for model in back.values():
        ws.tracker.set_alias(model.registered, "champion")
    if asset not in GATED_BY_REPORT:
        ws.lake.set_current(target)  # last, as the alias above: what names the version in use moves when all else has
    return done


def in_use(ws: Workspace, asset: str) -> Record:
    """The record of the version that counts as champion now; UnfitParent where there is none."""
    if asset not in GATED_BY_REPORT:
        return ws.parent(asset)
    champion = ws.tracker.by_alias(ws.registry_name(asset), "champion")
    if champion is None:
        raise UnfitParent(f"{asset} has no champion yet: materialize the evaluation_report, whose gate makes champions")
    return ws.lake.record_of(asset, kind_of(asset), champion.uri.rstrip("/").rpartition("/")[2])


def former_champions(ws: Workspace, asset: str) -> Iterator[Record]:
    """Records of the versions that are or were champion and are on record still, those promoted last first."""
    seen: set[str] = set()
    for record in _promoted(ws, asset):
        if record.data_version not in seen:
            seen.add(record.data_version)
            yield record


def version_of(record: Record) -> str:
    """What people call a version: the registry's name for a model, the data version of ``champion_captioners``."""
    return record.registry or record.data_version


def _promoted(ws: Workspace, asset: str) -> Iterator[Record]:
    if asset not in GATED_BY_REPORT:
        yield from ws.lake.versions(asset, kind_of(asset))  # each was champion when it was made
        return
    kept = {record.data_version: record for record in ws.lake.versions(asset, kind_of(asset))}
    for report in ws.lake.versions("evaluation_report", "report"):
        if asset in report.metadata.get("champions", ()) and report.inputs.get(asset) in kept:
            yield kept[report.inputs[asset]]


def _before(ws: Workspace, asset: str, current: Record) -> Record:
    refused = {name: set(withdrawn(ws.lake, name)) for name in _models(ws, current)}
    for record in former_champions(ws, asset):
        models = _models(ws, record)
        is_withdrawn = any(one.data_version in refused.get(name, ()) for name, one in models.items())
        if record.data_version != current.data_version and models and not is_withdrawn:
            return record
    raise NothingToReturnTo(
        f"no earlier champion of {asset} is left besides {version_of(current)}, which is in use; {_known(ws, asset)}"
    )


def _named(ws: Workspace, asset: str, name: str) -> Record:
    for record in ws.lake.versions(asset, kind_of(asset)):
        names = {record.data_version, str(record.registry), str(record.registry).rpartition("/")[2]}
        if name in names and _models(ws, record):
            return record
    raise NothingToReturnTo(f"{asset} has no version {name!r}; {_known(ws, asset)}")


def _known(ws: Workspace, asset: str) -> str:
    known = [version_of(record) for record in ws.lake.versions(asset, kind_of(asset)) if record.path]
    return f"on record are {', '.join(known) or 'none'}"


@dataclass(frozen=True, slots=True)
class _Model:
    registered: ModelVersion
    data_version: str


def _models(ws: Workspace, record: Record) -> Mapping[str, _Model]:
    """The models behind a version, by asset: itself, or the captioners that the champions' manifest names."""
    if record.asset != CHAMPIONS:
        return {record.asset: _Model(ws.registered(record), record.data_version)} if record.registry else {}
    named = ws.lake.read_json(record.path)
    return {f"{kind}_captioner": _captioner(ws, named[kind]) for kind in KINDS}


def _captioner(ws: Workspace, named: Mapping[str, str]) -> _Model:
    name, _, version = named["registry"].rpartition("/")
    return _Model(ModelVersion(name, version, ws.lake.uri(named["path"])), named["data_version"])
