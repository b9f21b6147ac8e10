"""Training of the judge: cross-entropy of every attribute on pictures that were made a little worse.

Generated and decoded pictures are blurred, noisy, shifted by a fraction of a pixel and off in colour; a judge that only
saw rendered ones would misread them. So each training picture is shifted, blurred, tinted and made noisy at random, and
its colours bleed over its edges.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.contracts import Loss, Objective, Preview, Rows, StepRandom
from components.data.pictures import captioned_grid
from components.data.scene_captions import dsc
from components.data.scene_graph import PLACES, Scene
from components.diffusion.gathering import share_of_all

from .config import JudgeConfig
from .model import (
    IGNORED,
    SIDE_IN_PLACES,
    AttributeJudgeModel,
    class_numbers,
    labels_of,
    pixel_values_of,
    scenes_of,
)

_PREVIEW_ROWS, _PREVIEW_PICTURES = 512, 12


class AttributeJudgeFamily:
    """Pictures with their scenes, and the network that learns to read them."""

    def __init__(self, model: AttributeJudgeModel, config: JudgeConfig, train: Rows, evaluation: Rows) -> None:
        self.model = model
        self.config = config
        self.train, self.evaluation = train, evaluation
        self.chosen = rows_of_half(train.keys, config.half)
        self.num_rows = len(self.chosen)
        self.labels = labels_of(_scenes_of_rows(train, "train"), model.config)
        backgrounds = self.labels["background"].numpy()[self.chosen]
        self._rows_by_background = {number: self.chosen[rows] for number, rows in _grouped(backgrounds).items()}

    def batch(self, rows: np.ndarray, rng: StepRandom) -> Mapping[str, Any]:
        """``pixel_values`` (B, 3, H, W) in [-1, 1], made worse, and the class numbers of every attribute."""
        pixels, labels = self._mixed(self.chosen[rows], rng)
        return {"pixel_values": made_worse(pixel_values_of(pixels), self.config, rng)} | labels

    def _mixed(self, rows: np.ndarray, rng: StepRandom) -> tuple[np.ndarray, dict[str, Tensor]]:
        """Pictures, some of whose places come from another picture on the same background, and their labels.

        So the judge also sees pictures with no object and with four, which an image model may make and the world never.
        """
        chance = rng.uniform("partner").cpu().numpy()  # (B,)
        groups = [self._rows_by_background[background] for background in self.labels["background"][rows].tolist()]
        partners = np.array([group[int(part * len(group))] for group, part in zip(groups, chance, strict=True)])
        taken = rng.uniform("places", (len(PLACES),)).cpu() < self.config.mix  # (B, places)
        labels = {name: values[rows].clone() for name, values in self.labels.items()}
        for name in self.model.config.place_attributes or {}:
            labels[name] = torch.where(taken, self.labels[name][partners], labels[name])
        side = self.train.pixels.shape[1] // SIDE_IN_PLACES
        mask = taken.numpy().reshape(-1, SIDE_IN_PLACES, SIDE_IN_PLACES)
        mask = mask.repeat(side, axis=1).repeat(side, axis=2)[..., None]  # (B, H, W, 1)
        return np.where(mask, self.train.pixels[partners], self.train.pixels[rows]), labels

    def objectives(self) -> Sequence[Objective]:
        """The one objective."""
        return [ReadingObjective(self.model)]

    def modules(self) -> Mapping[str, nn.Module]:
        """The network."""
        return {"judge": self.model}

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors; :func:`.sample.load_judge` reads them."""
        self.model.save_pretrained(folder)

    def preview(self) -> Preview:
        """Shares of held-out pictures and attributes read right, and pictures with what was read from them."""
        rows = self.evaluation
        truth = _scenes_of_rows(rows, "evaluation")[:_PREVIEW_ROWS]
        pixels = rows.pixels[: len(truth)]
        with torch.no_grad():
            pixel_values = pixel_values_of(pixels).to(self.model.device)
            logits = [self.model(part) for part in pixel_values.split(128)]
        chosen = class_numbers({name: torch.cat([part[name] for part in logits]) for name in logits[0]})
        read = scenes_of(chosen, self.model.config)
        shown = sorted(range(len(truth)), key=lambda row: read[row] == truth[row])[:_PREVIEW_PICTURES]
        return Preview(
            image=captioned_grid(pixels[shown], [_words(read[row]) for row in shown], columns=4, scale=4),
            metrics=_accuracies(chosen, labels_of(truth, self.model.config)) | _whole_scenes(read, truth),
            rows=[{"key": rows.keys[row], "truth": _words(truth[row]), "read": _words(read[row])} for row in shown],
        )


class ReadingObjective:
    """The sum of the cross-entropies of all attributes."""

    name = "reading"

    def __init__(self, model: AttributeJudgeModel) -> None:
        self.model = model

    def parameters(self) -> Iterable[nn.Parameter]:
        """All weights of the network."""
        return self.model.parameters()

    def loss(self, batch: Mapping[str, Any], rng: StepRandom) -> Loss:
        """Mean cross-entropy of every attribute over the places that have it, summed over attributes."""
        logits = self.model(batch["pixel_values"])
        losses = {name: _mean_loss(values.flatten(0, -2), batch[name].flatten()) for name, values in logits.items()}
        return Loss(torch.stack(list(losses.values())).sum(), losses)

    def after_step(self, step: int) -> None:
        """Nothing moves but the weights."""


def _mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of ``logits`` (N, classes) over those labels (N,) of all workers that are there."""
    count = (labels != IGNORED).sum()
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")
    return total / count.clamp(min=1) * share_of_all(count)


def made_worse(pixel_values: Tensor, config: JudgeConfig, rng: StepRandom) -> Tensor:
    """Pictures in [-1, 1], (B, 3, H, W), each shifted, blurred, tinted and so on by its own random amounts."""
    batch, _, height, width = pixel_values.shape
    draws = rng.uniform("amounts", (7,))  # (B, 7)
    shifts = (2 * draws[:, :2] - 1) * 2 * config.max_shift / 32  # grid coordinates span 2
    transform = torch.eye(2, 3, device=pixel_values.device).repeat(batch, 1, 1)
    transform[:, :, 2] = shifts
    grid = F.affine_grid(transform, [batch, 3, height, width], align_corners=False)
    pixel_values = F.grid_sample(pixel_values, grid, padding_mode="border", align_corners=False)
    pixel_values = torch.lerp(pixel_values, _blurred(pixel_values, 3), _amounts(draws[:, 2], config.blur))
    luma = pixel_values.mean(dim=1, keepdim=True)
    bled = luma + _blurred(pixel_values - luma, 5)
    pixel_values = torch.lerp(pixel_values, bled, _amounts(draws[:, 3], config.bleed))
    contrast, brightness = ((2 * draws[:, 4:6] - 1) * 2 * config.tint)[:, :, None, None, None].unbind(1)
    noise = rng.normal("noise", (3, height, width)) * (2 * config.noise * draws[:, 6])[:, None, None, None]
    return (pixel_values * (1 + contrast) + brightness + noise).clamp(-1, 1)


def _blurred(pixel_values: Tensor, width: int) -> Tensor:
    half = width // 2
    return F.avg_pool2d(F.pad(pixel_values, (half, half, half, half), mode="replicate"), width, stride=1)


def _amounts(drawn: Tensor, fraction: float) -> Tensor:
    """Uniform in [0, 1) for the given fraction of rows, else 0; (B, 1, 1, 1)."""
    return torch.where(drawn < fraction, drawn / max(fraction, 1e-6), 0.0)[:, None, None, None]


def _accuracies(chosen: Mapping[str, np.ndarray], labels: Mapping[str, Tensor]) -> dict[str, float]:
    accuracies = {}
    for name, values in labels.items():
        truth = values.numpy()
        counted = truth != IGNORED
        if counted.any():
            accuracies[f"accuracy/{name}"] = float((chosen[name] == truth)[counted].mean())
    return accuracies


def _whole_scenes(read: Sequence[Scene], truth: Sequence[Scene]) -> dict[str, float]:
    return {"accuracy/scene": float(np.mean([one == other for one, other in zip(read, truth, strict=True)]))}


def _words(scene: Scene) -> str:
    return dsc(scene) if scene.objects else f"nothing on a {scene.background} background"


def rows_of_half(keys: Sequence[str], half: str | None) -> np.ndarray:
    """Positions (int64) of the keys of one half; the halves are disjoint, and a key never changes sides."""
    sides = np.array([hashlib.sha256(f"judge/{key}".encode()).digest()[0] & 1 for key in keys], dtype=np.int64)
    return np.arange(len(keys)) if half is None else np.flatnonzero(sides == (half == "second"))


def _grouped(numbers: np.ndarray) -> dict[int, np.ndarray]:
    return {int(number): np.flatnonzero(numbers == number) for number in np.unique(numbers)}


def _scenes_of_rows(rows: Rows, name: str) -> Sequence[Scene]:
    if rows.scenes is None or not len(rows):
        raise ValueError(
            f"the {name} rows have no ground-truth scenes; an attribute judge can only be trained on such a data set "
            "(for others, use a hub CLIP as judge)"
        )
    return rows.scenes
