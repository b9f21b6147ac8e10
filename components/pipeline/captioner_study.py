"""How few hand-written captions suffice: SSC and DSC captioners fine-tuned on ever more examples, with equal steps.

What belongs here: the study's cells, their training and measurement, and its table. What does not: the captioners of
the graph (``train``) and what makes a caption right (``components.evaluation.caption_accuracy``).

A cell is one kind and one number of examples. Its figures lie under its fingerprint in ``reports/captioner_study``, and
its training leaves checkpoints: what is finished is never done again.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from components.captioning.recaption import KINDS
from components.contracts import Rows
from components.data.lake import digest_of

from .aside import check_truth, trained_aside
from .captions import load_captioner
from .ingest import open_reader
from .progress import silence_libraries
from .rows import in_memory, load_rows, subset
from .train import section_of
from .versions import CODE_VERSIONS
from .workspace import UnfitParent, Workspace

log = logging.getLogger(__name__)
SIZES = (250, 500, 1000, 2000)
PLACE = "reports/captioner_study"
CODE_VERSION = "2"  # to be raised when cells would be measured otherwise
FIGURES = {"attribute_accuracy": "attributes right", "exact_match": "exact", "hallucination_rate": "made up"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One captioner of the study; the raw captions beside them have no examples."""

    kind: str
    num_examples: int | None


def study_captioners(ws: Workspace, sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """Train and measure every cell that is not done yet; the whole study as a JSON value.

    It also lies as ``report.json`` and ``table.md`` under ``reports/captioner_study/latest``. Raises UnfitParent where
    the data set has no ground truth, or fewer examples than the largest size.
    """
    check_truth(ws)
    silence_libraries()
    study = _Study(ws, max(sizes))
    cells = [Cell("raw", None), *(Cell(kind, size) for kind in KINDS for size in sizes)]
    report = {
        "dataset": ws.dataset.name,
        "recipe": ws.recipe.name,
        "num_pictures": len(study.held_out),
        "cells": [{"kind": cell.kind, "examples": cell.num_examples, **study.figures_of(cell)} for cell in cells],
    }
    ws.lake.write_json(f"{PLACE}/latest/report.json", report)
    ws.lake.write_bytes(f"{PLACE}/latest/table.md", table_of(report).encode())
    return report


def table_of(report: dict[str, Any]) -> str:
    """The study as a Markdown table: shares in per cent, 95 % intervals in brackets."""
    from components.evaluation.figures import in_per_cent

    heading = [f"captions of held-out pictures ({report['num_pictures']:,})", "examples", *FIGURES.values()]
    lines = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    for cell in report["cells"]:
        shown = [in_per_cent(cell["figures"].get(name)) for name in FIGURES]
        examples = "-" if cell["examples"] is None else f"{cell['examples']:,}"
        name = cell["kind"] if cell["examples"] is None else cell["kind"].upper()
        lines.append(f"| {name} | {examples} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


class _Study:
    """The rows, examples and base captioner that all cells share."""

    def __init__(self, ws: Workspace, num_examples: int) -> None:
        self.ws = ws
        split = load_rows(ws, with_truth=True)
        rows = split.evaluation
        self.held_out: Rows = in_memory(rows, ws.recipe.evaluation.num_pictures)
        self.train = split.train
        self.examples = {kind: self._examples(kind, num_examples) for kind in KINDS}

    def figures_of(self, cell: Cell) -> dict[str, Any]:
        """Figures and training seconds of one cell, measured now or found."""
        path = f"{PLACE}/{self._fingerprint(cell)}.json"
        if self.ws.lake.exists(path) and not self.ws.is_forced:
            return self.ws.lake.read_json(path)
        if cell.num_examples is None:
            captions, seconds = [text or "" for text in self.held_out.texts["caption"]], 0.0
        else:
            captions, seconds = self._trained(cell)
        found = {"figures": self._measured(cell.kind, captions), "seconds": round(seconds, 1)}
        self.ws.lake.write_json(path, found)
        log.info("captioner study: %s from %s examples: %s", cell.kind, cell.num_examples, found["figures"])
        return found

    def _examples(self, kind: str, wanted: int) -> list[tuple[int, str]]:
        """Positions in the training rows and texts of the first ``wanted`` examples of a kind."""
        facts = self.ws.dataset.facts
        asked = getattr(facts.examples, kind).model_copy(update={"rows": wanted})
        examples = facts.examples.model_copy(update={kind: asked})
        dataset = dataclasses.replace(self.ws.dataset, facts=facts.model_copy(update={"examples": examples}))
        position = {key: number for number, key in enumerate(self.train.keys)}
        texts = dataset.examples(kind, open_reader(self.ws.dataset, self.ws.recipe)).items()  # type: ignore[arg-type]
        found = [(position[key], text) for key, text in texts if key in position]
        if len(found) < wanted:
            raise UnfitParent(
                f"only {len(found)} {kind} examples of {wanted} lie in the image set: raise data.max_shards or "
                "data.max_rows_per_shard, or study fewer"
            )
        return found

    def _fingerprint(self, cell: Cell) -> str:
        parents = ("image_set", "base_captioner")
        section = (
            None if cell.num_examples is None else section_of(self.ws, f"{cell.kind}_captioner").model_dump(mode="json")
        )
        return digest_of(
            [
                *(self.ws.parent(name).data_version for name in parents),
                CODE_VERSIONS["dsc_captioner"],
                [cell.kind, cell.num_examples, section, len(self.held_out)],
                [CODE_VERSION, self.ws.recipe.recaption.temperature, self.ws.recipe.recaption.seed],
            ]
        )

    def _trained(self, cell: Cell) -> tuple[list[str], float]:
        """Captions of the held-out pictures by the captioner of a cell, and the seconds of its training."""
        ws, section = self.ws, section_of(self.ws, f"{cell.kind}_captioner")
        chosen = self.examples[cell.kind][: cell.num_examples]
        rows = subset(self.train, np.array([position for position, _ in chosen]))
        rows = dataclasses.replace(rows, texts={**rows.texts, f"{cell.kind}_example": [text for _, text in chosen]})
        parents = {"base_captioner": ws.model_folder("base_captioner")}
        build = partial(section.model.build, rows, self.held_out, parents)
        place = f"captioner_study-{self._fingerprint(cell)}"
        label = f"{cell.kind} captioner from {len(chosen)} examples"
        with (
            trained_aside(ws, build, section.training, place, label) as (averaged, seconds),
            tempfile.TemporaryDirectory() as folder,
        ):
            averaged.save(Path(folder))
            captioner = load_captioner(Path(folder), ws.recipe.recaption.temperature, ws.recipe.recaption.seed)
            captions = captioner.caption(self.held_out.pixels, self.held_out.keys)
        return captions, seconds

    def _measured(self, kind: str, captions: Sequence[str]) -> dict[str, Any]:
        from components.data import scenes as world
        from components.evaluation.caption_accuracy import caption_accuracy

        scenes = list(self.held_out.scenes or ())
        expected = [world.parse_facts(world.ssc(scene)) if kind == "ssc" else world.facts_of(scene) for scene in scenes]
        accuracy = caption_accuracy(captions, scenes, expected)
        return {
            name: [figure.value, list(figure.ci95 or ()), figure.num_samples]
            for name in FIGURES
            if (figure := getattr(accuracy, name)) is not None
        }
