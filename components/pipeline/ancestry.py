"""What a record was made from: walking from a record over its inputs to every record behind it.

What belongs here: the edges between records. What does not: questions about rows and models (``lineage``), and what it
all cost (``costs``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from components.data.lake import RECORD, Kind, Lake, Record

from .versions import CODE_VERSIONS
from .workspace import kind_of

MANIFESTS = ("image_set", "training_set")
_Place = tuple[str, Kind, str, str | None]  # asset, kind, data version, shard


def ancestry(lake: Lake, record: Record) -> tuple[list[Record], list[str]]:
    """All records that a record was made from, nearest first, and the names of those that the lake has no more."""
    found: dict[str, Record] = {}
    lost: dict[str, str] = {}
    level = [record]
    while level:
        wanted = {lake.record_path(*parent): parent for one in level for parent in _parents(lake, one)}
        new = [path for path in wanted if path not in found]
        contents = lake.read_many(new)
        level = [Record(**json.loads(contents[path])) for path in new if path in contents]
        found |= {path: Record(**json.loads(data)) for path, data in contents.items()}
        lost |= {path: _label(*wanted[path]) for path in new if path not in contents}
    return list(found.values()), list(lost.values())


def _label(asset: str, kind: Kind, data_version: str, shard: str | None = None) -> str:
    return f"{asset}{f'[{shard}]' if shard else ''} {data_version}"


def _parents(lake: Lake, record: Record) -> Iterator[_Place]:
    """What a record's inputs and manifest name."""
    for name, data_version in record.inputs.items():
        if name == "raw_pairs" and record.shard:
            yield name, "table", data_version, record.shard
        elif name == "latents":
            yield from _parts_of(lake, name, data_version.split(","))
        elif name in CODE_VERSIONS and kind_of(name) != "table":
            yield name, kind_of(name), data_version, None
    if record.asset in MANIFESTS:
        of = "raw_pairs" if record.asset == "image_set" else "recaptioned"
        for entry in lake.read_json(record.path)["shards"]:
            yield of, "table", entry["data_version"], entry["shard"]


def _parts_of(lake: Lake, asset: str, data_versions: Sequence[str]) -> Iterator[_Place]:
    """Parts whose shards a record does not name: looked for by their records."""
    places = (path.split("/") for path in lake.files(asset) if path.endswith(RECORD))
    shards = {name.removesuffix(RECORD): shard for *_, shard, name in places}
    for data_version in data_versions:
        yield asset, "table", data_version, shards.get(data_version)


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
