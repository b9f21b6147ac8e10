"""Whether an asset can be made again: a slice of it is, and its digest is compared with the one on record.

What belongs here: which slice of each asset is made again, and how it is compared. What does not: making it (the stage
functions do), and keeping anything: the lake is opened for reading only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from components import schemas
from components.data.ingest import ingest_shard
from components.data.lake import ReadOnlyLake, Record, digest_of, folder_digest, part_of
from components.data.part_writer import spooled_part
from components.execution.local_executor import LocalExecutor
from components.tracking import open_tracker

from .captions import build_training_set, recaption_stage
from .champions import choose_champions
from .graph import ORDER
from .ingest import build_image_set, open_reader
from .latents import encode_stage, extract_text_encoder
from .report import draw_first_pictures
from .row_filters import load_filters
from .study import ASSET as STUDY
from .study import section_of_arm
from .train import STAGES, new_trainer, weights_digest
from .workspace import Workspace, kind_of

REBUILT = {
    "image_set": build_image_set,
    "champion_captioners": choose_champions,
    "training_set": build_training_set,
    "text_encoder": extract_text_encoder,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One slice: what was made again, and its digest on record and now."""

    asset: str
    slice: str
    expected: str
    found: str

    @property
    def is_equal(self) -> bool:
        """Whether the slice came out the same."""
        return self.found == self.expected


def verify(ws: Workspace, assets: tuple[str, ...] = ORDER) -> Iterator[Comparison]:
    """Make a slice of each asset again and compare: a shard, a row group, the first steps, the first pictures.

    Work runs in this process, whatever ran it first. Raises :class:`components.pipeline.workspace.UnfitParent` where an
    asset was never made.
    """
    with tempfile.TemporaryDirectory() as folder:
        dry = replace(
            ws,
            lake=ReadOnlyLake(ws.lake.uri()),
            executor=LocalExecutor(),
            tracker=open_tracker(f"local:{folder}"),
            is_forced=True,
        )
        for asset in assets:
            yield from _compare(dry, asset)


def _compare(ws: Workspace, asset: str) -> Iterator[Comparison]:
    if asset in REBUILT:
        record = ws.parent(asset)
        yield Comparison(asset, "all", _content(record), _content(REBUILT[asset](ws).record))
    elif asset == "evaluation_report":
        expected = ws.parent(asset).metadata["first_pictures"]
        yield Comparison(asset, "first pictures", expected, draw_first_pictures(ws))
    elif asset == STUDY:
        for arm, record in ws.lake.records(STUDY, "model").items():
            recipe = ws.recipe.model_copy(update={"latent_diffusion": section_of_arm(ws, arm)})
            yield _first_steps(ws.with_recipe(recipe), "latent_diffusion", record, f"{asset}[{arm}]")
    elif asset in STAGES:
        record = ws.parent(asset)
        if record.path:  # a judge that needs ground truth is not made without
            yield _first_steps(ws, asset, record, asset)
    elif kind_of(asset) == "table":
        yield _first_shard(ws, asset)


def _content(record: Record) -> str:
    """What must be equal: the data version, and what captioners wrote."""
    samples = record.metadata.get("samples")
    return record.data_version if samples is None else digest_of([record.data_version, samples])


def _first_steps(ws: Workspace, asset: str, record: Record, label: str) -> Comparison:
    early: Mapping[str, Any] = record.metadata["early_weights"]
    trainer = new_trainer(ws, asset)
    if not early:  # a checkpoint that is kept as it is
        with tempfile.TemporaryDirectory() as folder:
            trainer.family.save(Path(folder))
            return Comparison(label, "the checkpoint", record.data_version, folder_digest(Path(folder)))
    steps = trainer.run()
    for step in steps:
        if step.step == early["step"]:
            break
    return Comparison(label, f"{early['step']} steps", early["digest"], weights_digest(trainer.family.modules()))


def _first_shard(ws: Workspace, asset: str) -> Comparison:
    shard, record = next(iter(ws.lake.records(asset).items()))
    if asset == "raw_pairs":
        config = ws.recipe.data.ingest
        filters = load_filters(config, ws.recipe.data.fit)
        result = ingest_shard(
            open_reader(ws.dataset, ws.recipe), int(shard), config, ws.dataset.license, filters=filters
        )
        with spooled_part(result.row_groups(), schemas.RAW_PAIRS) as (_, found):
            pass
        return Comparison(f"{asset}[{shard}]", "all rows", record.data_version, found)
    stage = recaption_stage(ws) if asset == "recaptioned" else encode_stage(ws)
    part = ws.parent("raw_pairs", shard)
    made = stage.factory()(stage.items(part)[0])
    stored = ws.lake.read_table(record.path).slice(0, made.num_rows)
    if asset == "recaptioned":  # a worker writes captions and scores; the rest of the row follows from them
        names = [name for name in stored.column_names if name in made.column_names]
        expected, found = (digest_of(table.select(names).to_pylist()) for table in (stored, made))
    else:
        expected, found = (part_of(_plain(table), schemas.TABLES[asset])[1] for table in (stored, made))
    return Comparison(f"{asset}[{shard}]", f"{made.num_rows} rows", expected, found)


def _plain(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata(None).combine_chunks()
