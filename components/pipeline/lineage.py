"""Lineage: where a row comes from, which captions it has had, and which training sets and models saw it.

What belongs here: questions answered from the lake's records, manifests and tables alone; nothing is written. What does
not: wording for a terminal or the Dagster UI (``orchestration``).

A model *saw* a row where the row was among those it could draw in training: in the training split (by the data set's
present ``splits.evaluation``), not opted out, its captions not rejected where it read captions, and with an example
text where it learned from examples. A model that was made from such a model, or from captions that one wrote, saw it
*through* that model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

import pyarrow.parquet as pq

from components.addresses import without_credentials
from components.data.images import ImageLimits, Rejection, normalise
from components.data.lake import CURRENT, RECORD, Kind, LakeError, Record
from components.data.opt_outs import OptOut, OptOuts
from components.data.storage import open_file

from .ancestry import MANIFESTS, ancestry, captioners_of, sources_of
from .opt_outs import opt_outs_of, opted_out
from .train import STAGES
from .workspace import Workspace

ROW_COLUMNS = ["key", "sha256", "source_sha256", "width", "height", "perceptual_hash", "caption", "source", "license"]
Standing = Literal["trained on", "evaluation", "opted out", "copy of another row", "captions rejected"]


class NotInLake(LakeError):
    """The lake has no such row, source, captioner or model; the message says what it has."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an asset or shard; ``made_at`` is when its record was last written (UTC, seconds)."""

    asset: str
    shard: str | None
    data_version: str
    registry: str | None
    made_at: str | None
    is_current: bool
    num_rows: int | None


@dataclass(frozen=True, slots=True)
class Sight:
    """A model version that saw something: in its own training (``through`` is empty) or through other models."""

    model: Version
    through: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RowVersion:
    """A row as one version of raw_pairs holds it."""

    part: Version
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CaptionVersion:
    """A caption that a row has had. ``rejected`` says why the row's captions were not to be trained on."""

    kind: str
    text: str | None
    captioner: str
    score: float | None
    rejected: str | None
    part: Version


@dataclass(frozen=True, slots=True)
class SetStanding:
    """How a row stands in one image set or training set."""

    manifest: Version
    standing: Standing


@dataclass(frozen=True, slots=True)
class RowLineage:
    """All that is known of one key."""

    key: str
    versions: Sequence[RowVersion]
    rejections: Sequence[Mapping[str, str]]
    captions: Sequence[CaptionVersion]
    sets: Sequence[SetStanding]
    models: Sequence[Sight]


@dataclass(frozen=True, slots=True)
class PictureLineage:
    """A picture from outside: what an opt-out list would say of it, and the rows that hold it or a near copy."""

    uri: str
    sha256: str
    perceptual_hash: str
    rows: Sequence[RowLineage]


@dataclass(frozen=True, slots=True)
class PartLineage:
    """What became of whole parts: of a source's shards, or of a captioner's captions."""

    what: str
    parts: Sequence[Version]
    sets: Sequence[Version]
    models: Sequence[Sight]


@dataclass(frozen=True, slots=True)
class ModelLineage:
    """What a version was made from, nearest first, with its sources; and what was made from it."""

    model: Version
    ancestors: Sequence[Version]
    sources: Mapping[str, int]
    captioners: Sequence[str]
    missing: Sequence[str]
    descendants: Sequence[Sight]


@dataclass(frozen=True, slots=True)
class OptedOut:
    """An opted-out row: what names it, whether the present image set still holds it, and who saw it."""

    key: str
    part: Version
    entry: str
    reason: str
    is_left_out: bool
    models: Sequence[Sight]


# ----------------------------------------------------------------------------------------------------------- the ledger
class Ledger:
    """Every record that a lake has kept, read once; answers the questions of this module."""

    def __init__(self, ws: Workspace) -> None:
        self.ws, self.lake = ws, ws.lake
        files = self.lake.files()
        contents = self.lake.read_many([path for path in files if path.endswith((RECORD, f"/{CURRENT}"))])
        parsed = {path: Record(**json.loads(data)) for path, data in contents.items()}
        self._current = {_place(record) for path, record in parsed.items() if path.endswith(CURRENT)}
        kept = [(files[path].modified or 0.0, path, record) for path, record in parsed.items() if path.endswith(RECORD)]
        self.records = [record for *_, record in sorted(kept, key=lambda each: each[:2])]
        self._made_at = {_place(record): modified for modified, _, record in kept}
        self._manifests: dict[str, Any] = {}
        self._entries: dict[str, set[tuple[str | None, str]]] = {}
        self._rejected: dict[str, set[str]] = {}
        self._copies: dict[str, set[str]] = {}

    def version(self, record: Record) -> Version:
        """A record as answers name it."""
        place = _place(record)
        modified = self._made_at.get(place)
        return Version(
            asset=record.asset,
            shard=record.shard,
            data_version=record.data_version,
            registry=record.registry,
            made_at=datetime.fromtimestamp(modified, UTC).isoformat(timespec="seconds") if modified else None,
            is_current=place in self._current,
            num_rows=record.num_rows,
        )

    def of(self, *assets: str) -> list[Record]:
        """All versions of assets, oldest first."""
        return [record for record in self.records if record.asset in assets]

    @cached_property
    def models(self) -> list[Record]:
        """All model versions, oldest first; assets that the data set cannot have are left out."""
        return [record for record in self.records if record.kind == "model" and record.path]

    @property
    def current(self) -> list[Record]:
        """The current version of every asset and shard, oldest first."""
        return [record for record in self.records if _place(record) in self._current]

    def manifest(self, record: Record) -> Any:
        """A manifest's content."""
        if record.path not in self._manifests:
            self._manifests[record.path] = self.lake.read_json(record.path)
        return self._manifests[record.path]

    def entries(self, manifest: Record | None) -> set[tuple[str | None, str]]:
        """(shard, data version) of the parts that a manifest names."""
        if manifest is None:
            return set()
        if manifest.path not in self._entries:
            shards = self.manifest(manifest)["shards"]
            self._entries[manifest.path] = {(entry["shard"], entry["data_version"]) for entry in shards}
        return self._entries[manifest.path]

    # ------------------------------------------------------------------------------------------------------- questions
    def row(self, key: str) -> RowLineage:
        """All that is known of a key. Raises :class:`NotInLake` where it was never kept or rejected."""
        versions = list(self._rows([("key", "==", key)]))
        rejections = list(self._rejections(key))
        if not versions and not rejections:
            raise NotInLake(f"no version of raw_pairs in {self.lake.uri()} has a row with the key {key!r}")
        parts = {_place(record): record for record, _ in versions}
        sights = self._sights(lambda model: any(self._saw(model, part, [key]) for part in parts.values()))
        return RowLineage(
            key=key,
            versions=[RowVersion(self.version(record), row) for record, row in versions],
            rejections=rejections,
            captions=list(self._captions(key, {part.shard for part in parts.values()})),
            sets=list(self._standings(key, list(parts.values()))),
            models=sights,
        )

    def sha256(self, digest: str) -> list[RowLineage]:
        """The rows whose picture has this digest, as it lay in the source or as it is stored."""
        digest = digest.lower()
        found = list(self._rows([[("sha256", "==", digest)], [("source_sha256", "==", digest)]]))
        if not found:
            raise NotInLake(f"no version of raw_pairs in {self.lake.uri()} has a picture with the SHA-256 {digest}")
        return [self.row(key) for key in sorted({row["key"] for _, row in found})]

    def picture(self, uri: str) -> PictureLineage:
        """The rows that hold a picture file, or a near copy of it; the rows' own hashes are read, no picture is.

        Raises ValueError where the file is no picture that ingestion would take.
        """
        shown = without_credentials(uri)
        with open_file(uri) as file:
            stored = normalise(file.read(), ImageLimits())
        if isinstance(stored, Rejection):
            raise ValueError(f"{shown} is no picture that can be compared: {stored.reason}, {stored.detail}")
        wanted = OptOuts((OptOut(sha256=stored.source_sha256), OptOut(perceptual_hash=stored.perceptual_hash)))
        found = {key for matches in opted_out(self.ws, self.of("raw_pairs"), wanted) for key in matches}
        rows = [self.row(key) for key in sorted(found)]
        return PictureLineage(shown, stored.source_sha256, stored.perceptual_hash, rows)

    def source(self, uri: str) -> PartLineage | RowLineage:
        """What became of source shards (a file's URI, or a folder's), or of the one row at ``URI#member``."""
        uri = without_credentials(uri)  # as records have it
        if "#" in uri:
            rows = list(self._rows([("source", "==", uri)]))
            if not rows:
                raise NotInLake(f"no version of raw_pairs in {self.lake.uri()} has a row from {uri}")
            return self.row(rows[-1][1]["key"])
        known = {str(record.metadata.get("uri")) for record in self.of("raw_pairs")}
        wanted = {each for each in known if each == uri or each.startswith(f"{uri.rstrip('/')}/")}
        if not wanted:
            raise NotInLake(f"nothing was read from {uri}; sources are {', '.join(sorted(known)[:8]) or 'none'}")
        parts = [record for record in self.of("raw_pairs") if record.metadata.get("uri") in wanted]
        return self._parts(uri, parts, self._sights(lambda model: any(self._saw(model, part) for part in parts)))

    def captioner(self, registry: str) -> PartLineage:
        """What became of the captions that a registered captioner version wrote (``name/version``)."""
        parts = [part for part in self.of("recaptioned") if registry in captioners_of([part])]
        if not parts:
            known = captioners_of(self.records)
            raise NotInLake(f"{registry} wrote no captions here; captioners are {', '.join(known) or 'none'}")
        places = {(part.shard, part.data_version) for part in parts}

        def read_them(model: Record) -> bool:
            read = self._read_by(model, "training_set")
            return not places.isdisjoint(self.entries(read))

        return self._parts(registry, parts, self._sights(read_them))

    def model(self, name: str) -> ModelLineage:
        """What a model was made from, and into.

        ``name`` is an asset (its current version), ``asset@version`` or a registered ``name/version``.
        """
        record = self.model_record(name)
        records, missing = ancestry(self.lake, record)
        ancestors = [one for one in records if one.kind != "table"]
        return ModelLineage(
            model=self.version(record),
            ancestors=[self.version(one) for one in ancestors],
            sources=sources_of(records),
            captioners=captioners_of(records),
            missing=missing,
            descendants=[sight for sight in self._sights(lambda model: model is record) if sight.through],
        )

    def opted_out(self) -> list[OptedOut]:
        """The rows that the opt-out lists name, in any version of raw_pairs, and who saw them."""
        parts = self.of("raw_pairs")
        present = self.lake.record("image_set", "manifest")
        left_out = set(self.manifest(present)["opted_out"]) if present else set()
        places = self.entries(present)
        found = []
        for part, matches in zip(parts, opted_out(self.ws, parts, opt_outs_of(self.ws)), strict=True):
            for key, entry in matches.items():
                is_left_out = key in left_out or (part.shard, part.data_version) not in places
                seen_by = self.seen_by([(part, [key])])
                found.append(OptedOut(key, self.version(part), str(entry), entry.reason, is_left_out, seen_by))
        return found

    def seen_by(self, rows: Sequence[tuple[Record, Sequence[str]]]) -> list[Sight]:
        """The models that saw any of these rows: parts of raw_pairs, with keys in them."""
        return self._sights(lambda model: any(self._saw(model, part, keys) for part, keys in rows))

    # ----------------------------------------------------------------------------------------------------------- tables
    def _rows(self, filters: Any) -> Iterator[tuple[Record, dict[str, Any]]]:
        """Rows of all versions of raw_pairs that pass a filter of pyarrow's, with the record of their part."""
        for part in self.of("raw_pairs"):
            for row in self.lake.read_known(part.path, ROW_COLUMNS, filters).to_pylist():
                yield part, row

    def _read(self, path: str, filters: Any, columns: list[str] | None = None) -> list[dict[str, Any]]:
        with self.lake.open(path) as file:  # parts are sorted by key: other row groups are not read
            return pq.read_table(file, columns=columns, filters=filters).to_pylist()

    def _rejections(self, key: str) -> Iterator[dict[str, str]]:
        for part in self.of("raw_pairs", "image_set"):
            if part.metadata.get("rejected_path"):
                yield from self._read(part.metadata["rejected_path"], [("key", "==", key)])

    def _captions(self, key: str, shards: set[str | None]) -> Iterator[CaptionVersion]:
        for part in self.of("recaptioned"):
            for row in self._read(part.path, [("key", "==", key)]) if part.shard in shards else ():
                for kind in ("ssc", "dsc"):
                    yield CaptionVersion(
                        kind=kind,
                        text=row[kind],
                        captioner=row[f"{kind}_captioner"],
                        score=row[f"{kind}_score"],
                        rejected=row["rejected"],
                        part=self.version(part),
                    )

    # --------------------------------------------------------------------------------------------------------- who saw
    def _standings(self, key: str, parts: Sequence[Record]) -> Iterator[SetStanding]:
        for manifest in self.of(*MANIFESTS):
            images = self._images_of(manifest)
            if images is not None and any((part.shard, part.data_version) in self.entries(images) for part in parts):
                yield SetStanding(self.version(manifest), self._standing(key, manifest, images))

    def _standing(self, key: str, manifest: Record, images: Record) -> Standing:
        if key in self.manifest(images)["opted_out"]:
            return "opted out"
        if key in self._set_aside(images):
            return "copy of another row"
        if self.ws.dataset.is_held_out(key):
            return "evaluation"
        if manifest.asset == "training_set" and key in self._rejected_captions(manifest):
            return "captions rejected"
        return "trained on"

    def _set_aside(self, images: Record) -> set[str]:
        """Keys that an image set leaves out because they are copies of others."""
        if images.path not in self._copies:
            self._copies[images.path] = {
                keys[row].as_py()
                for entry in self.manifest(images)["shards"]
                if entry.get("set_aside")
                for keys in [self.lake.read_table(entry["path"], ["key"])["key"]]
                for row in entry["set_aside"]
            }
        return self._copies[images.path]

    def _rejected_captions(self, training_set: Record) -> set[str]:
        """Keys whose captions a training set leaves out."""
        if training_set.path not in self._rejected:
            self._rejected[training_set.path] = {
                row["key"]
                for entry in self.manifest(training_set)["shards"]
                for row in self._read(entry["path"], [("rejected", "!=", "")], ["key"])
            }
        return self._rejected[training_set.path]

    def _images_of(self, manifest: Record) -> Record | None:
        if manifest.asset == "image_set":
            return manifest
        return self._find("image_set", self.manifest(manifest)["image_set"])

    def _find(self, asset: str, data_version: str | None) -> Record | None:
        return next((one for one in self.of(asset) if one.data_version == data_version), None)

    def _read_by(self, model: Record, asset: str) -> Record | None:
        """The manifest of a kind that a model read."""
        return self._find(asset, model.inputs.get(asset)) if model.inputs.get(asset) else None

    def _saw(self, model: Record, part: Record, keys: Sequence[str] | None = None) -> bool:
        """Whether a model learned from a part of raw_pairs, or from any of these rows of it."""
        if model.metadata.get("steps") == 0:
            return False  # a checkpoint that is kept as it is
        manifest = self._read_by(model, "training_set") or self._read_by(model, "image_set")
        images = manifest and self._images_of(manifest)
        if not manifest or not images or (part.shard, part.data_version) not in self.entries(images):
            return False
        if keys is None:
            return True
        only_text = STAGES[model.asset].only_text if model.asset in STAGES else None
        if only_text:
            examples = self.manifest(images)["examples"].get(only_text.removesuffix("_example"), {})
            keys = [key for key in keys if key in examples]
        return any(self._standing(key, manifest, images) == "trained on" for key in keys)

    def _sights(self, saw: Any) -> list[Sight]:
        """The models for which ``saw`` holds, and those that were made from them, oldest first."""
        direct = {_place(model) for model in self.models if saw(model)}
        reached, grown = set(direct), True
        while grown:
            from_reached = (m for m in self.models if any(_place(one) in reached for one in self._made_from(m)))
            grown = {_place(model) for model in from_reached} - reached
            reached |= grown
        return [
            Sight(self.version(model), () if _place(model) in direct else self._through(model, reached))
            for model in self.models
            if _place(model) in reached
        ]

    def _through(self, model: Record, reached: set[tuple]) -> tuple[str, ...]:
        return tuple(sorted({one.asset for one in self._made_from(model) if _place(one) in reached}))

    def _made_from(self, model: Record) -> list[Record]:
        """Models that a model was made from: its parents, and those that wrote the captions it read."""
        parents = [self._find(name, version) for name, version in model.inputs.items() if name not in MANIFESTS]
        read = self._read_by(model, "training_set")
        if read is not None:
            places = self.entries(read)
            parts = [part for part in self.of("recaptioned") if (part.shard, part.data_version) in places]
            parents += [one for one in self.models if one.registry in captioners_of(parts)]
        return [one for one in parents if one is not None and one.kind == "model"]

    def _parts(self, what: str, parts: Sequence[Record], sights: Sequence[Sight]) -> PartLineage:
        places = {(part.shard, part.data_version) for part in parts}
        sets = [
            self.version(manifest)
            for manifest in self.of(*MANIFESTS)
            if not places.isdisjoint(self.entries(manifest) | self.entries(self._images_of(manifest)))
        ]
        return PartLineage(what, [self.version(part) for part in parts], sets, sights)

    def model_record(self, name: str) -> Record:
        """A model version's record, by an asset, ``asset@version`` or registered name; :class:`NotInLake`."""
        asset, _, version = name.partition("@")
        for record in reversed(self.models):
            label = record.asset if record.shard is None else f"{record.asset}[{record.shard}]"
            if record.registry == name or (label == asset and record.data_version == version):
                return record
            if label == asset and not version and _place(record) in self._current:
                return record
        known = sorted({record.registry or record.asset for record in self.models})
        raise NotInLake(f"there is no model {name!r} in {self.lake.uri()}; there are {', '.join(known) or 'none'}")


def _place(record: Record) -> tuple[Kind, str, str | None, str]:
    return record.kind, record.asset, record.shard, record.data_version
