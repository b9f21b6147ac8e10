"""Filters of ingestion that need a model: CLIP score against the caption, and labels of an image classifier.

What belongs here: loading such models and judging rows with them. What does not: when they are asked
(``components.data.ingest``) and what they must say (the recipe).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.data.images import Rejection
from components.data.ingest import ClassifierFilter, ClipFilter, IngestConfig, RowFilter
from components.data.lake import folder_digest
from components.data.pixels import Fit, decode_pixels
from components.data.storage import files_below

from .progress import silence_libraries


def load_filters(config: IngestConfig, fit: Fit) -> list[RowFilter]:
    """The recipe's filters, their models loaded (weights as safetensors alone: nothing is unpickled).

    Raises what transformers raises where there is no such model, ValueError where it lacks the label.
    """
    if config.clip_filter is None and not config.classifier_filters:
        return []
    silence_libraries()
    filters: list[RowFilter] = []
    if config.clip_filter is not None:
        filters.append(_load_clip_filter(config.clip_filter, fit))
    return [*filters, *(_load_classifier(one) for one in config.classifier_filters)]


def filter_versions(config: IngestConfig) -> Mapping[str, str]:
    """Digests of the filters' folders, so that other weights at the same place make rows new; hub ids have none."""
    models = [one.model for one in (config.clip_filter, *config.classifier_filters) if one is not None]
    folders = {f"filter {model}": Path(model) for model in models}
    return {name: _digest_of(folder, _state_of(folder)) for name, folder in folders.items() if folder.is_dir()}


def _state_of(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """What changes when a file below a folder does, told without reading any."""
    files = [(str(path), path.stat()) for path in files_below(folder)]
    return tuple((path, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for path, state in files)


@lru_cache(maxsize=32)  # sensors ask every few minutes, and weights may be gigabytes
def _digest_of(folder: Path, state: tuple[tuple[str, int, int, int], ...]) -> str:
    return folder_digest(folder)


@dataclass(frozen=True, slots=True)
class _ClipJudge:
    """Sets pictures aside that do not fit their captions."""

    config: ClipFilter
    scorer: Any
    fit: Fit

    def judge(self, images: Sequence[bytes], captions: Sequence[str]) -> list[Rejection | None]:
        side = self.scorer.parts.normalization.resolution
        scores = self.scorer.score(np.stack([decode_pixels(image, side, self.fit) for image in images]), captions)
        return [
            Rejection("low_clip_score", f"{score:.2f}, min_score is {self.config.min_score:g}")
            if score < self.config.min_score
            else None
            for score in scores.tolist()
        ]


@dataclass(frozen=True, slots=True)
class _Classifier:
    """Sets pictures aside by the score of one label."""

    config: ClassifierFilter
    model: Any
    processor: Any
    label: int

    def judge(self, images: Sequence[bytes], captions: Sequence[str]) -> list[Rejection | None]:
        import torch

        pictures = [Image.open(io.BytesIO(image)).convert("RGB") for image in images]
        with torch.no_grad():
            inputs = self.processor(pictures, return_tensors="pt").to(self.model.device)
            logits = self.model(**inputs).logits.float()
        return [self._verdict(score) for score in self._scores(logits)[:, self.label].tolist()]

    def _scores(self, logits: Any) -> Any:
        """Probabilities, or the values of a regression."""
        kind = self.model.config.problem_type or ("regression" if logits.shape[1] == 1 else None)
        if kind == "regression":
            return logits
        return logits.sigmoid() if kind == "multi_label_classification" else logits.softmax(dim=1)

    def _verdict(self, score: float) -> Rejection | None:
        low, high = self.config.min_score, self.config.max_score
        told = f"{self.config.label} {score:.3f} ({self.config.model})"
        if low is not None and score < low:
            return Rejection("filtered", f"{told}, min_score is {low:g}")
        if high is not None and score > high:
            return Rejection("filtered", f"{told}, max_score is {high:g}")
        return None


def _load_clip_filter(config: ClipFilter, fit: Fit) -> RowFilter:
    from components.execution.device import best_device
    from components.families.clip.sample import load_clip

    return _ClipJudge(config, load_clip(config.model, best_device()), fit)


def _load_classifier(config: ClassifierFilter) -> RowFilter:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    from components.execution.device import best_device

    model = AutoModelForImageClassification.from_pretrained(config.model, use_safetensors=True)
    labels: Mapping[str, int] = model.config.label2id
    if config.label not in labels:
        raise ValueError(f"{config.model} has no label {config.label!r}; it has {', '.join(sorted(labels))}")
    processor = AutoImageProcessor.from_pretrained(config.model)
    return _Classifier(config, model.to(best_device()).eval(), processor, int(labels[config.label]))
