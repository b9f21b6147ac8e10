"""The workspace of a run, and the rule by which an asset is made again or reused.

What belongs here: fingerprints, records, parents and their refusal. What does not: how any one asset is made.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from components.contracts import Executor, ModelVersion, Tracker
from components.data.catalog import Dataset
from components.data.lake import Kind, Lake, Record, digest_of
from components.execution.memory import forget_peak_memory
from components.execution.usage import Meter, Usage
from components.recipes.recipe import Recipe

from .prices import Prices
from .versions import CODE_VERSIONS
from .withdrawals import taken_back

log = logging.getLogger(__name__)

KINDS: dict[str, Kind] = {
    "raw_pairs": "table",
    "recaptioned": "table",
    "latents": "table",
    "image_set": "manifest",
    "training_set": "manifest",
    "champion_captioners": "manifest",
    "evaluation_report": "report",
}  # every other asset is a model


def kind_of(asset: str) -> Kind:
    """What sort of thing an asset leaves in the lake."""
    return KINDS.get(asset, "model")


class UnfitParent(RuntimeError):
    """A parent is missing, refused by its verdict, or was made with another data set or recipe."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a stage function hands back: where the content lies and what there is to say about it.

    ``workers`` is what other processes took to make it.
    """

    data_version: str
    path: str
    num_rows: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    verdict: str | None = None
    registry: str | None = None
    workers: Sequence[Usage] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A record, and whether it was there already."""

    record: Record
    is_reused: bool


@dataclass(frozen=True, slots=True)
class Workspace:
    """Everything that a stage function may use: one data set, one recipe, one lake."""

    dataset: Dataset
    recipe: Recipe
    lake: Lake
    executor: Executor
    tracker: Tracker
    scratch: Path
    is_forced: bool = False
    run_tags: Mapping[str, str] = field(default_factory=dict)

    def forced(self) -> Workspace:
        """The same workspace, in which nothing is reused."""
        return replace(self, is_forced=True)

    def with_recipe(self, recipe: Recipe) -> Workspace:
        """The same workspace with another recipe."""
        return replace(self, recipe=recipe)

    def parent(self, asset: str, shard: str | None = None) -> Record:
        """The current record of a parent; :class:`UnfitParent` naming the remedy where it cannot be used."""
        record = self.lake.record(asset, kind_of(asset), shard)
        if record is None:
            raise UnfitParent(
                f"{_label(asset, shard)} has not been materialized for dataset {self.dataset.name!r} with recipe "
                f"{self.recipe.name!r} in {self.lake.uri()}; materialize it first"
            )
        self.check_origin(record)
        return record

    def check_origin(self, record: Record) -> None:
        """Refuse a record that another data set or recipe left in this lake."""
        if (record.dataset, record.recipe) != (self.dataset.name, self.recipe.name):
            raise UnfitParent(
                f"{record.asset} in {self.lake.uri()} was made from dataset {record.dataset!r} with recipe "
                f"{record.recipe!r}, this run is for {self.dataset.name!r} with {self.recipe.name!r}; use another "
                "ATELIER_HOME, or the same dataset and recipe"
            )

    def parts(self, asset: str, shards: Sequence[str]) -> list[Record]:
        """Current records of a partitioned parent for these shards."""
        return [self.parent(asset, shard) for shard in shards]

    def model_folder(self, asset: str, shard: str | None = None) -> Path:
        """Local folder of the current version of a model asset."""
        return self.lake.fetch_folder(self.parent(asset, shard).path, self.scratch)

    def registered(self, record: Record) -> ModelVersion:
        """The registered version of a model's record."""
        name, _, version = str(record.registry).rpartition("/")
        return ModelVersion(name, version, self.lake.uri(record.path))

    def registry_name(self, asset: str, shard: str | None = None) -> str:
        """The registered model's name in the tracker."""
        return "-".join([self.dataset.name, self.recipe.name, asset, *([shard] if shard else [])])

    @staticmethod
    def fingerprint(asset: str, inputs: Mapping[str, str], settings: Any) -> str:
        """What an asset is made of: its code version, the recipe's part that matters, its inputs' data versions."""
        return digest_of([asset, CODE_VERSIONS[asset], settings, dict(inputs)])

    def reusable(
        self, asset: str, inputs: Mapping[str, str], settings: Any, shard: str | None = None
    ) -> tuple[str, Outcome | None]:
        """The fingerprint, and what the lake already has for it (None where it must be made, or is forced).

        ``inputs`` maps parents to data versions; ``settings`` is the part of the recipe that matters (a JSON value).
        """
        fingerprint = self.fingerprint(asset, inputs, settings)
        current = self.lake.record(asset, kind_of(asset), shard)
        if current is None or self.is_forced:
            return fingerprint, None
        self.check_origin(current)
        if current.fingerprint != fingerprint or not self.lake.exists(current.path):
            return fingerprint, None
        log.info("%s is up to date (%s): reused", _label(asset, shard), current.data_version)
        return fingerprint, Outcome(current, is_reused=True)

    def keep(
        self,
        asset: str,
        fingerprint: str,
        inputs: Mapping[str, str],
        made: Made,
        *,
        seconds: float,
        usage: Usage | None = None,
        shard: str | None = None,
    ) -> Outcome:
        """Make what a stage function has made the current version; ``usage`` is what all processes took for it.

        A table's columns are noted as they lie in its part.
        """
        kind = kind_of(asset)
        columns = {"columns": self.lake.columns(made.path)} if kind == "table" else {}
        folder = self.lake.place(asset, kind, shard)
        record = Record(
            asset=asset,
            kind=kind,
            dataset=self.dataset.name,
            recipe=self.recipe.name,
            fingerprint=fingerprint,
            data_version=made.data_version,
            path=made.path,
            shard=shard,
            num_rows=made.num_rows,
            inputs=dict(inputs),
            metadata={**made.metadata, **columns},
            pictures={
                name: self._write_picture(f"{folder}/{made.data_version}.{name}.png", picture)
                for name, picture in made.pictures.items()
            },
            verdict=made.verdict,
            registry=made.registry,
            seconds=round(seconds, 2),
            cpu_seconds=round(usage.cpu_seconds, 2) if usage else 0.0,
            gpu_seconds=round(usage.gpu_seconds, 2) if usage else 0.0,
            peak_memory_gib=round(usage.peak_memory_gib, 2) if usage else 0.0,
            cost=round(Prices.here().cost(usage.cpu_seconds, usage.gpu_seconds), 6) if usage else None,
        )
        self.lake.set_current(record)
        log.info("%s made in %.1f s (%s)", _label(asset, shard), record.seconds, record.data_version)
        return Outcome(record, is_reused=False)

    def materialize(
        self,
        asset: str,
        inputs: Mapping[str, str],
        settings: Any,
        make: Callable[[str], Made],
        shard: str | None = None,
    ) -> Outcome:
        """Make one asset or partition (``make`` receives the fingerprint), or reuse it where nothing has changed.

        A version that was rolled back is not made again: the one in use stays, also where the run is forced.
        """
        self.lake.check_writable()
        fingerprint, existing = self.reusable(asset, inputs, settings, shard)
        if existing:
            return existing
        if rollback := taken_back(self.lake, asset, fingerprint):
            log.warning("%s stays at %s: %s was %s", asset, rollback.to_version, rollback.from_version, rollback)
            return Outcome(self.parent(asset), is_reused=True)
        forget_peak_memory()
        meter, started = Meter(), time.perf_counter()
        made = make(fingerprint)
        seconds, usage = time.perf_counter() - started, meter.read().with_workers(made.workers)
        return self.keep(asset, fingerprint, inputs, made, seconds=seconds, usage=usage, shard=shard)

    def _write_picture(self, path: str, picture: Image.Image) -> str:
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        self.lake.write_bytes(path, buffer.getvalue())
        return path

    def write_manifest(self, asset: str, content: Mapping[str, Any]) -> tuple[str, str]:
        """Write a manifest under the digest of its content; (path, digest)."""
        digest = digest_of(content)
        path = f"{self.lake.place(asset, 'manifest')}/{digest}.json"
        self.lake.write_json(path, content)
        return path, digest

    def read_manifest(self, asset: str) -> tuple[Record, Any]:
        """The current record of a manifest and its content."""
        record = self.parent(asset)
        return record, self.lake.read_json(record.path)


def _label(asset: str, shard: str | None) -> str:
    return asset if shard is None else f"{asset}[{shard}]"
