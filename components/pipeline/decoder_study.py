"""The study of the decoders: teacher and student once more for every seed, on the same VAE, latents and judges.

What belongs here: which trainings there are, and on which rows they are measured. What does not: how they are trained
(``train``, as every model), measured (``decoding``) and shown (``components.evaluation.decoder_study``).

Seed 0 is the graph's own pair; the others are kept beside it, as partitions ``seed1``, ``seed2`` and so on of the same
assets. Beside each pair stands a control, ``control0`` and so on: a teacher of as many steps as both together, never
distilled. What is trained already is reused, and a training that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from PIL import Image

from components.contracts import Rows
from components.data.lake import Record
from components.data.pictures import captioned_grid, png_bytes
from components.recipes.recipe import Trained

from .decoding import load_decoders, measure_decoders, two_step_decoder
from .judging import load_judges
from .progress import silence_libraries
from .provenance import git_commit
from .rows import in_memory, load_rows, subset
from .train import KeptAs, section_of, train_model
from .workspace import UnfitParent, Workspace

if TYPE_CHECKING:
    from components.evaluation.decoder_study import DecoderStudy, StudiedSeed
    from components.evaluation.measurement import Judges

log = logging.getLogger(__name__)
TEACHER, STUDENT = "diffusion_decoder", "consistency_decoder"
PLACE = "reports/decoder_study"
NUM_SHOWN = 12
RowsOf = Literal["reported", "choosing"]


def study_decoders(ws: Workspace, rows_of: RowsOf = "reported") -> DecoderStudy:
    """Train what is missing, measure every seed, and write the study into the lake as JSON and Markdown.

    ``rows_of``: the held-out rows that reports use, or as many others, to choose hyper-parameters on.
    """
    from components.evaluation.decoder_study import DecoderStudy

    silence_libraries()
    trained = {seed: train_trio(ws, seed) for seed in range(ws.recipe.decoder_study.num_seeds)}
    rows = held_out_rows(ws, rows_of)
    judges = load_judges(ws, rows)[0]
    seeds = []
    for seed, trio in trained.items():
        one, decoded = _measure(ws, seed, trio, rows, judges)
        seeds.append(one)
        sheet = contact_sheet(rows.pixels, decoded)
        ws.lake.write_bytes(f"{PLACE}/{rows_of}-seed{seed}.png", png_bytes(sheet))
    study = DecoderStudy(
        dataset=ws.dataset.name,
        recipe=ws.recipe.name,
        atelier_version=version("atelier"),
        git_commit=git_commit(),
        rows=rows_of,
        num_pictures=len(rows),
        sections={asset: section_of(ws, asset).model_dump(mode="json") for asset in (TEACHER, STUDENT)},
        seeds=tuple(seeds),
    )
    for suffix, text in (("json", study.to_json()), ("md", study.to_markdown())):
        ws.lake.write_bytes(f"{PLACE}/{rows_of}.{suffix}", text.encode())
    return study


class Trio(NamedTuple):
    """The trainings of one seed."""

    teacher: Record
    student: Record
    control: Record


def train_trio(ws: Workspace, seed: int) -> Trio:
    """The teacher with this seed, its student and their control, trained or reused."""
    ours = ws.with_recipe(
        ws.recipe.model_copy(update={asset: _seeded(ws, asset, seed) for asset in (TEACHER, STUDENT)})
    )
    shard = f"seed{seed}" if seed else None
    parents = {TEACHER: shard} if shard else {}
    teacher = train_model(ours, TEACHER, KeptAs(TEACHER, shard)).record
    student = train_model(ours, STUDENT, KeptAs(STUDENT, shard, parents)).record
    num_steps = sum(section_of(ours, asset).training.num_steps for asset in (TEACHER, STUDENT))
    longer = ours.with_recipe(
        ours.recipe.model_copy(update={TEACHER: _with_training(section_of(ours, TEACHER), num_steps=num_steps)})
    )
    return Trio(teacher, student, train_model(longer, TEACHER, KeptAs(TEACHER, f"control{seed}")).record)


def _seeded(ws: Workspace, asset: str, seed: int) -> Trained:
    section = section_of(ws, asset)
    return _with_training(section, seed=section.training.seed + seed)


def _with_training(section: Trained, **changes: int) -> Trained:
    return section.model_copy(update={"training": section.training.model_copy(update=changes)})


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


def contact_sheet(pixels: np.ndarray, decoded: Mapping[str, np.ndarray]) -> Image.Image:
    """The first pictures, enlarged, a row each: the original, then every decoder's in the order given."""
    columns = {"original": pixels, **decoded}
    cells = np.stack([np.asarray(one[:NUM_SHOWN]) for one in columns.values()], axis=1)
    names = [*columns, *[""] * (cells.shape[0] - 1) * len(columns)]
    return captioned_grid(cells.reshape(-1, *cells.shape[2:]), names, columns=len(columns))


def _measure(
    ws: Workspace, seed: int, trio: Trio, rows: Rows, judges: Judges
) -> tuple[StudiedSeed, dict[str, np.ndarray]]:
    from components.evaluation.decoder_gate import shortcomings
    from components.evaluation.decoder_study import StudiedSeed

    log.info("decoder study: seed %d is measured on %d pictures", seed, len(rows))
    teacher, student, control = (ws.lake.fetch_folder(record.path, ws.scratch) for record in trio)
    config = ws.recipe.evaluation
    decoders = load_decoders(ws.model_folder("vae"), teacher, student, config)
    decoders["control"] = two_step_decoder(control, config)
    decoded = {name: decoder.decode(np.asarray(rows.latents)) for name, decoder in decoders.items()}
    figures = measure_decoders(decoders, decoded, rows, judges, config)
    studied = StudiedSeed(
        seed=seed,
        steps={name: record.metadata["steps"] for name, record in trio._asdict().items()},
        seconds={name: record.seconds for name, record in trio._asdict().items()},
        figures=figures,
        shortcomings=shortcomings(figures, ws.recipe.decoder_gate),
    )
    return studied, decoded
