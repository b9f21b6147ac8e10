"""What a record was made from: walking from a record over its inputs to every record behind it.

What belongs here: the edges between records. What does not: questions about rows and models (``lineage``), and what it
all cost (``costs``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import PurePosixPath

from components.data.lake import RECORD, Kind, Lake, Record

from .champions import ASSET as CHAMPIONS
from .versions import CODE_VERSIONS
from .workspace import kind_of

MANIFESTS = ("image_set", "training_set")
_Place = tuple[str, Kind, str, str | None]  # asset, kind, data version, shard


def ancestry(lake: Lake, record: Record) -> tuple[list[Record], list[str]]:
    """All records that a record was made from, nearest first, and the names of those that the lake has no more."""
    edges = _Edges(lake)
    found: dict[str, Record] = {}
    lost: dict[str, str] = {}
    level = [record]
    while level:
        wanted = {lake.record_path(*parent): parent for one in level for parent in edges.parents_of(one)}
        new = [path for path in wanted if path not in found]
        contents = lake.read_many(new)
        level = [Record(**json.loads(contents[path])) for path in new if path in contents]
        found |= {path: Record(**json.loads(data)) for path, data in contents.items()}
        lost |= {path: _label(*wanted[path]) for path in new if path not in contents}
    return list(found.values()), list(lost.values())


def _label(asset: str, kind: Kind, data_version: str, shard: str | None = None) -> str:
    return f"{asset}{f'[{shard}]' if shard else ''} {data_version}"


class _Edges:
    """The edges between a lake's records; what must be listed for them is listed once."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def parents_of(self, record: Record) -> Iterator[_Place]:
        """What a record's inputs and manifest name."""
        for name, data_version in record.inputs.items():
            if name == "raw_pairs" and record.shard:
                yield name, "table", data_version, record.shard
            elif name == "latents":  # their shards are not named
                for one in data_version.split(","):
                    yield name, "table", one, self._shards_of_latents.get(one)
            elif name == CHAMPIONS and record.asset == "recaptioned":  # named by the digest of what the manifest says
                yield name, "manifest", self._champions_by_digest.get(data_version, data_version), None
            elif name in CODE_VERSIONS and kind_of(name) != "table":
                yield name, kind_of(name), data_version, None
        if record.asset in MANIFESTS:
            of = "raw_pairs" if record.asset == "image_set" else "recaptioned"
            for entry in self.lake.read_json(record.path)["shards"]:
                yield of, "table", entry["data_version"], entry["shard"]

    @cached_property
    def _shards_of_latents(self) -> dict[str, str]:
        places = (path.split("/") for path in self.lake.files("latents") if path.endswith(RECORD))
        return {name.removesuffix(RECORD): shard for *_, shard, name in places}

    @cached_property
    def _champions_by_digest(self) -> dict[str, str]:
        """Data versions (``ssc/1,dsc/1``) by the digest that names the manifest's file."""
        versions = list(self.lake.versions(CHAMPIONS, "manifest"))
        return {PurePosixPath(one.path).stem: one.data_version for one in reversed(versions)}


def sources_of(records: Sequence[Record]) -> dict[str, int]:
    """URIs of the source shards behind records, and how many of their rows were kept."""
    parts = [record for record in records if record.asset == "raw_pairs"]
    return dict(sorted((str(part.metadata.get("uri")), part.num_rows or 0) for part in parts))


def captioners_of(records: Sequence[Record]) -> list[str]:
    """Registry versions that wrote the captions among records."""
    named = (
        r.metadata.get(f"{kind}_captioner") for r in records if r.asset == "recaptioned" for kind in ("ssc", "dsc")
    )
    return sorted({str(name) for name in named if name})
