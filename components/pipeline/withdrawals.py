"""The ledger of rollbacks: which versions were taken back, by whom and why, so that no gate promotes them again.

What belongs here: writing and reading the ledger. What does not: taking a version back (``rollback``) and asking the
ledger (``workspace`` and the gates do).

One file in the lake for each rollback, written whole and never changed. A version is withdrawn from the rollback that
left it until one that returns to it by name.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from components.data.lake import Lake

PLACE = "rollbacks"


@dataclass(frozen=True, slots=True)
class Rollback:
    """One rollback of ``asset``: from one version in use to another.

    ``withdrawn`` and ``reinstated`` map model assets to the data versions that left and returned (for
    ``champion_captioners`` those of its captioners that differ); ``fingerprint`` is what the version that left was made
    under, empty where only an alias moved; ``at`` is UTC in ISO form.
    """

    asset: str
    from_version: str
    to_version: str
    withdrawn: Mapping[str, str]
    reinstated: Mapping[str, str]
    fingerprint: str
    by: str
    at: str
    why: str

    def __str__(self) -> str:
        reason = f": {self.why}" if self.why else ""
        when = f"on {self.at[:10]} at {self.at[11:16]} UTC"
        return f"rolled back to {self.to_version} by {self.by} {when}{reason}"


def note(lake: Lake, rollback: Rollback) -> None:
    """Add a rollback to the ledger."""
    lake.write_json(f"{PLACE}/{rollback.asset}/{rollback.at}-{uuid.uuid4().hex[:8]}.json", asdict(rollback))


def rollbacks(lake: Lake) -> list[Rollback]:
    """All rollbacks, the oldest first."""
    found = lake.read_many([path for path in lake.files(PLACE) if path.endswith(".json")])
    return sorted((Rollback(**json.loads(data)) for data in found.values()), key=lambda one: one.at)


def withdrawn(lake: Lake, asset: str) -> dict[str, Rollback]:
    """Data versions of a model asset that were taken back and not returned to since, each with its rollback."""
    standing: dict[str, Rollback] = {}
    for one in rollbacks(lake):
        if asset in one.withdrawn:
            standing[one.withdrawn[asset]] = one
        if asset in one.reinstated:
            standing.pop(one.reinstated[asset], None)
    return standing


def taken_back(lake: Lake, asset: str, fingerprint: str) -> Rollback | None:
    """The rollback that forbids making an asset current again under a fingerprint, or None."""
    standing: Rollback | None = None
    for one in rollbacks(lake):
        if one.asset != asset:
            continue
        if one.fingerprint == fingerprint:
            standing = one
        elif standing and one.to_version == standing.from_version:
            standing = None
    return standing
