"""Trainings of a study that leave figures and nothing else: no record, no version, no run in the tracker.

What belongs here: one training beside the graph, and what it took. What does not: the graph's own models (``train``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .progress import Progress
from .workspace import UnfitParent

if TYPE_CHECKING:
    from components.contracts import Family
    from components.training.config import TrainingConfig

    from .workspace import Workspace

log = logging.getLogger(__name__)


def check_truth(ws: Workspace) -> None:
    """Raise :class:`UnfitParent` where nothing can be counted as right, because the data set has no ground truth."""
    if not ws.dataset.has_ground_truth:
        raise UnfitParent(
            f"data set {ws.dataset.name!r} has no ground truth, so nothing can be counted as right: take scenes"
        )


@contextmanager
def trained_aside(
    ws: Workspace, build: Callable[[], Family], training: TrainingConfig, place: str, label: str
) -> Iterator[tuple[Family, float]]:
    """The family that ``build`` makes, with its averaged weights, and the seconds that its steps took.

    A training that was interrupted goes on from its checkpoint under ``checkpoints/<place>``; once the block has ended
    well, its checkpoints are gone. After a resume the seconds are those of all steps at the new rate.
    """
    import torch

    from components.execution.device import device_for
    from components.training.checkpoint import Checkpoints
    from components.training.loop import Trainer

    torch.manual_seed(training.seed)
    checkpoints = Checkpoints(ws.lake, f"checkpoints/{place}")
    device = device_for(training.num_gpus_per_worker)
    trainer = Trainer(build(), training, device=device, checkpoints=checkpoints)
    progress, seconds = Progress(log, label, training.num_steps, "steps"), 0.0
    for step in trainer.run():
        progress.update(step.step)
        if step.rows_per_second:  # not known yet after a step that compiled
            seconds = step.step * training.batch_size / step.rows_per_second
    with trainer.averaged_weights() as averaged:
        yield averaged, seconds
    checkpoints.clear()


def seconds_of_a_step(build: Callable[[], Family], training: TrainingConfig, num_steps: int = 40) -> float:
    """Median seconds of a training's step, found with steps of a family that is then thrown away."""
    import time
    from statistics import median

    from components.execution.device import device_for
    from components.training.loop import Trainer

    device = device_for(training.num_gpus_per_worker)
    short = training.model_copy(update={"num_steps": num_steps, "checkpoint_every": 0, "preview_every": 0})
    times, last = [], time.perf_counter()
    for _ in Trainer(build(), short, device=device).run():
        now = time.perf_counter()
        times.append(now - last)
        last = now
    return median(times[num_steps // 4 :])
