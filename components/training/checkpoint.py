"""A training's state, written whole, so that a stopped training goes on where it stood, on any node of a cluster.

What belongs here: saving and loading of the loop's state, and which checkpoints are kept. What does not: the models
that a training leaves behind (``components.pipeline.train`` keeps those).
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from pickle import UnpicklingError
from typing import Any

import torch

from components.data.lake import Lake

log = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d{9})\.pt")


class Checkpoints:
    """The newest checkpoints of one training in a folder of the lake, and small notes beside them."""

    def __init__(self, lake: Lake, folder: str, num_kept: int = 1) -> None:
        self.lake, self.folder, self.num_kept = lake, folder, num_kept

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Keep ``state`` (tensors, numbers and containers of them) of ``step``; forget all but the newest ones.

        One of a later step is forgotten too: it could not be read, or the training would have gone on from there.
        """
        with self.lake.create(f"{self.folder}/step-{step:09d}.pt") as file:
            torch.save(state, file)
        steps = self.steps()
        for other in set(steps) - set([one for one in steps if one <= step][-self.num_kept :]):
            self.lake.remove(f"{self.folder}/step-{other:09d}.pt")

    def load(self) -> dict[str, Any] | None:
        """The newest checkpoint that is undamaged, or None where there is none.

        Raises ``StorageError`` where the storage does not answer: nothing is known of the checkpoint then.
        """
        for step in reversed(self.steps()):
            path = f"{self.folder}/step-{step:09d}.pt"
            with tempfile.TemporaryFile() as copy:
                with self.lake.open(path) as file:
                    shutil.copyfileobj(file, copy)
                copy.seek(0)
                try:
                    return torch.load(copy, map_location="cpu", weights_only=True)
                except (RuntimeError, EOFError, UnpicklingError) as error:
                    log.warning("%s is damaged (%s): the training goes on from an older one", path, error)
        return None

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, in order."""
        names = (path.rpartition("/")[2] for path in self.lake.files(self.folder))
        return [int(match[1]) for name in names if (match := _NAME.fullmatch(name))]

    def write_note(self, name: str, data: bytes) -> None:
        """Keep a small file beside the checkpoints."""
        self.lake.write_bytes(f"{self.folder}/{name}", data)

    def read_note(self, name: str) -> bytes | None:
        """A note, or None where it was never written."""
        path = f"{self.folder}/{name}"
        return self.lake.read_bytes(path) if self.lake.exists(path) else None

    def clear(self) -> None:
        """Forget everything, once the model is safe."""
        self.lake.remove_folder(self.folder)
