"""A training's state, written whole, so that a stopped training goes on where it stood.

What belongs here: saving and loading of the loop's state. What does not: the models that a training leaves behind
(``components.data.lake`` keeps those).
"""

import io
import os
import shutil
from pathlib import Path
from typing import Any

import torch


class CheckpointFolder:
    """Keeps the newest checkpoint of one training in a local folder; the file is replaced whole."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "checkpoint.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by ``state`` (tensors, numbers and containers of them)."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(buffer.getvalue())
        partial.replace(self.path)

    def load(self) -> dict[str, Any] | None:
        """The newest checkpoint, or None where there is none."""
        if not self.path.exists():
            return None
        return torch.load(self.path, map_location="cpu", weights_only=True)

    def clear(self) -> None:
        """Forget the checkpoint, and what lies beside it, once the model is safe in the lake."""
        shutil.rmtree(self.path.parent, ignore_errors=True)
