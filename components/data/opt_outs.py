"""The opt-out list: pictures that nobody may be shown or trained on, by key, by digest or by likeness.

What belongs here: the list's form and which rows it names. What does not: what is left out because of it
(``components.pipeline.opt_outs``).

A list is a file of JSON lines on any storage, each with one of ``key`` (of a row), ``sha256`` (of the picture's bytes
as they lay in the source or as they are stored) or ``perceptual_hash`` (16 hexadecimal digits, with ``max_distance``
bits that may differ), and if wanted a ``reason``. Empty lines and lines that begin with # are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from components.addresses import without_credentials
from components.contracts import Frozen

from .json_lines import read_json_lines
from .perceptual_hash import FLAT, distances, parse_hash
from .storage import open_file

FORM = 'write for example {"key": "..."}'


class OptOutError(ValueError):
    """The list is missing or broken; the message names file, line and remedy."""


class OptOut(Frozen):
    """One line of the list."""

    key: str | None = Field(default=None, description="Key of a row.", min_length=1)
    sha256: str | None = Field(
        default=None, description="SHA-256 of the picture's source or stored bytes.", pattern=r"^[0-9a-f]{64}$"
    )
    perceptual_hash: str | None = Field(default=None, description="64-bit hash of the picture, 16 hexadecimal digits.")
    max_distance: int = Field(default=6, description="Bits in which a near copy's hash may differ.", ge=0, le=16)
    reason: str = Field(default="", description="Who asked for it, and when.")

    @field_validator("sha256", "perceptual_hash", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("perceptual_hash")
    @classmethod
    def _is_a_hash(cls, value: str | None) -> str | None:
        if value is not None:
            parse_hash(value)
        return value

    @model_validator(mode="after")
    def _one_way(self) -> OptOut:
        if [self.key, self.sha256, self.perceptual_hash].count(None) != 2:
            raise ValueError("give exactly one of key, sha256 and perceptual_hash")
        return self

    def __str__(self) -> str:
        if self.perceptual_hash:
            return f"perceptual_hash {self.perceptual_hash}, up to {self.max_distance} bits"
        return f"key {self.key}" if self.key else f"sha256 {self.sha256}"


@dataclass(frozen=True, slots=True)
class OptOuts:
    """A whole list."""

    entries: tuple[OptOut, ...] = ()

    def settings(self) -> list[dict[str, object]]:
        """What decides which rows are named, for fingerprints: reasons and the lines' order do not."""
        found = [entry.model_dump(mode="json", exclude={"reason"}, exclude_none=True) for entry in self.entries]
        return sorted(found, key=lambda entry: json.dumps(entry, sort_keys=True))

    def matches(self, rows: pa.Table) -> dict[str, OptOut]:
        """The entry that names each opted-out row, by key, in the rows' order.

        ``rows`` holds ``key``, ``sha256``, ``source_sha256`` and ``perceptual_hash``, as raw_pairs does; a row
        without a hash (null, from before there were any) is near to nothing.
        """
        by_key = {entry.key: entry for entry in self.entries if entry.key}
        by_digest = {entry.sha256: entry for entry in self.entries if entry.sha256}
        near = self._near(rows["perceptual_hash"])
        columns = zip(*(rows[name].to_pylist() for name in ("key", "sha256", "source_sha256")), strict=True)
        found: dict[str, OptOut] = {}
        for position, (key, stored, source) in enumerate(columns):
            entry = by_key.get(key) or by_digest.get(stored) or by_digest.get(source) or near.get(position)
            if entry:
                found[key] = entry
        return found

    def _near(self, written: pa.ChunkedArray) -> dict[int, OptOut]:
        near: dict[int, OptOut] = {}
        wanted = [entry for entry in self.entries if entry.perceptual_hash]
        texts = written.to_pylist() if wanted else []
        hashes = np.array([parse_hash(text) if text else FLAT for text in texts], dtype=np.uint64)
        for entry in wanted:
            if entry.perceptual_hash:
                is_near = distances(hashes, parse_hash(entry.perceptual_hash)) <= entry.max_distance
                near |= {int(position): entry for position in np.flatnonzero(is_near)}
        return near


def read_opt_outs(uris: Iterable[str]) -> OptOuts:
    """The lists at these addresses as one. Raises :class:`OptOutError` naming file and line, or what is missing."""
    return OptOuts(tuple(entry for uri in uris for entry in _entries(uri)))


def _entries(uri: str) -> Sequence[OptOut]:
    try:
        with open_file(uri) as file:
            data = file.read()
    except FileNotFoundError as error:
        raise OptOutError(
            f"the opt-out list {without_credentials(uri)} cannot be read ({type(error).__name__}); nothing is trained "
            "without it: mend the address (opt_out in dataset.yaml, or ATELIER_OPT_OUT)"
        ) from None  # the driver's own words may hold a password
    return [entry for _, entry in read_json_lines(without_credentials(uri), data, OptOut, OptOutError, FORM)]
