"""The checkpoint as a family: nothing is trained, and the lake gets a folder that stands by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from components.contracts import Objective, Preview, Rows, StepRandom
from components.data.pictures import captioned_grid

from .config import SETTINGS_FILE, HubCaptionerConfig
from .sample import HubCaptioner

_NUM_SHOWN = 8


class HubCaptionerFamily:
    """A captioner that is kept as it is (:class:`components.contracts.Family`)."""

    def __init__(self, config: HubCaptionerConfig, evaluation: Rows, parents: Mapping[str, Path]) -> None:
        source = config.pretrained or parents.get("base_captioner")
        if source is None:
            raise ValueError("a hub captioner needs pretrained: a folder or hub id of an image-text-to-text model")
        self.config = config
        self.evaluation = evaluation
        self.num_rows = 0
        self.model, self.processor = load_checkpoint(source)

    def batch(self, rows: np.ndarray, rng: StepRandom) -> Mapping[str, Any]:
        """Raises ValueError: there is nothing to train."""
        raise ValueError("a hub captioner is not trained here; set its training.num_steps to 0")

    def objectives(self) -> Sequence[Objective]:
        """None."""
        return ()

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The model."""
        return {"captioner": self.model}

    def save(self, folder: Path) -> None:
        """Write a folder for ``AutoModelForImageTextToText`` and ``AutoProcessor``, and what the model is asked."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        (folder / SETTINGS_FILE).write_text(self.config.model_dump_json(exclude={"pretrained"}), encoding="utf-8")

    def preview(self) -> Preview:
        """Held-out pictures with the captions written for them."""
        pixels = np.asarray(self.evaluation.pixels[:_NUM_SHOWN])
        written = HubCaptioner(self.model, self.processor, self.config).caption(pixels, self.evaluation.keys)
        raw = self.evaluation.texts["caption"]
        rows = [
            {"key": key, "caption": text or "", "written": words}
            for key, text, words in zip(self.evaluation.keys, raw, written, strict=False)
        ]
        metrics = {"mean_words": float(np.mean([len(text.split()) for text in written]))} if written else {}
        return Preview(captioned_grid(pixels, written), metrics, rows)


def load_hub_captioner(folder: Path, device: torch.device | str = "cpu") -> HubCaptioner:
    """The captioner of a model folder, in the type in which its weights are stored."""
    config = HubCaptionerConfig.model_validate_json((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    model, processor = load_checkpoint(folder)
    model.to(torch.device(device))
    return HubCaptioner(model, processor, config)


def load_checkpoint(source: str | Path) -> tuple[Any, Any]:
    """Model and processor of a folder or hub id.

    Raises ValueError where the processor takes no pictures.
    """
    model: Any = AutoModelForImageTextToText.from_pretrained(source, dtype="auto")
    processor: Any = AutoProcessor.from_pretrained(source, backend="pil")
    if not hasattr(processor, "image_processor"):
        raise ValueError(
            f"{source} has a {type(processor).__name__}, which takes no pictures; save the processor there"
        )
    model.config._name_or_path = ""
    return model.eval().requires_grad_(False), processor
