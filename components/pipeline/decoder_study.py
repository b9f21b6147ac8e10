"""The study of the decoders: teacher and student once more for every seed, on the same VAE, latents and judges.

What belongs here: which trainings there are, and on which rows they are measured. What does not: how they are trained
(``train``, as every model), measured (``decoding``) and shown (``components.evaluation.decoder_study``).

Seed 0 is the graph's own pair; the others are kept beside it, as partitions ``seed1``, ``seed2`` and so on of the same
assets. What is trained already is reused, and a training that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from components.contracts import Rows
from components.data.lake import Record

from .decoding import load_decoders, measure_decoders
from .judging import load_judges
from .progress import silence_libraries
from .provenance import git_commit
from .rows import in_memory, load_rows, subset
from .train import KeptAs, section_of, train_model
from .workspace import UnfitParent, Workspace

if TYPE_CHECKING:
    from components.evaluation.decoder_study import DecoderStudy
    from components.evaluation.measurement import Judges

log = logging.getLogger(__name__)
TEACHER, STUDENT = "diffusion_decoder", "consistency_decoder"
PLACE = "reports/decoder_study"
RowsOf = Literal["reported", "choosing"]


def study_decoders(ws: Workspace, rows_of: RowsOf = "reported") -> DecoderStudy:
    """Train what is missing, measure every seed, and write the study into the lake as JSON and Markdown.

    ``rows_of``: the held-out rows that reports use, or as many others, to choose hyper-parameters on.
    """
    from components.evaluation.decoder_study import DecoderStudy

    silence_libraries()
    pairs = {seed: train_pair(ws, seed) for seed in range(ws.recipe.decoder_study.num_seeds)}
    rows = held_out_rows(ws, rows_of)
    judges = load_judges(ws, rows)[0]
    study = DecoderStudy(
        dataset=ws.dataset.name,
        recipe=ws.recipe.name,
        atelier_version=version("atelier"),
        git_commit=git_commit(),
        rows=rows_of,
        num_pictures=len(rows),
        sections={asset: section_of(ws, asset).model_dump(mode="json") for asset in (TEACHER, STUDENT)},
        seeds=tuple(_measure(ws, seed, pair, rows, judges) for seed, pair in pairs.items()),
    )
    for suffix, text in (("json", study.to_json()), ("md", study.to_markdown())):
        ws.lake.write_bytes(f"{PLACE}/{rows_of}.{suffix}", text.encode())
    return study


def train_pair(ws: Workspace, seed: int) -> tuple[Record, Record]:
    """Records of the teacher with this seed and of its student, trained or reused."""
    if not seed:
        return train_model(ws, TEACHER).record, train_model(ws, STUDENT).record
    sections = {asset: section_of(ws, asset) for asset in (TEACHER, STUDENT)}
    seeded = {
        asset: section.model_copy(
            update={"training": section.training.model_copy(update={"seed": section.training.seed + seed})}
        )
        for asset, section in sections.items()
    }
    ours, shard = ws.with_recipe(ws.recipe.model_copy(update=seeded)), f"seed{seed}"
    teacher = train_model(ours, TEACHER, KeptAs(TEACHER, shard)).record
    return teacher, train_model(ours, STUDENT, KeptAs(STUDENT, shard, {TEACHER: shard})).record


def held_out_rows(ws: Workspace, rows_of: RowsOf) -> Rows:
    """The first ``evaluation.num_pictures`` held-out rows, which reports use, or the next as many.

    :class:`UnfitParent` where there are none to choose on.
    """
    rows = load_rows(ws, with_latents=True, with_truth=True).evaluation
    count = ws.recipe.evaluation.num_pictures
    first = 0 if rows_of == "reported" else count
    chosen = in_memory(subset(rows, np.arange(first, min(len(rows), first + count))), count)
    if len(chosen) < 3:
        raise UnfitParent(
            f"{len(rows)} rows are held out and reports use the first {count}: too few are left to choose "
            "hyper-parameters on; raise splits.evaluation in the dataset.yaml or lower evaluation.num_pictures"
        )
    return chosen


def _measure(ws: Workspace, seed: int, pair: tuple[Record, Record], rows: Rows, judges: Judges) -> Any:
    from components.evaluation.decoder_gate import shortcomings
    from components.evaluation.decoder_study import StudiedSeed

    log.info("decoder study: seed %d is measured on %d pictures", seed, len(rows))
    teacher, student = (ws.lake.fetch_folder(record.path, ws.scratch) for record in pair)
    config = ws.recipe.evaluation
    decoders = load_decoders(ws.model_folder("vae"), teacher, student, config)
    decoded = {name: decoder.decode(np.asarray(rows.latents)) for name, decoder in decoders.items()}
    figures = measure_decoders(decoders, decoded, rows, judges, config)
    return StudiedSeed(
        seed=seed,
        steps={record.asset: record.metadata["steps"] for record in pair},
        seconds={record.asset: record.seconds for record in pair},
        figures=figures,
        shortcomings=shortcomings(figures, ws.recipe.decoder_gate),
    )
