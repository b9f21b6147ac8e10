"""Reading pictures with a trained judge."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from components.data.scene_graph import Scene

from .model import AttributeJudgeModel, class_numbers, pixel_values_of, scenes_of

_BATCH = 256


class AttributeJudge:
    """A trained judge: pictures in, scenes or features out."""

    def __init__(self, model: AttributeJudgeModel) -> None:
        self.model = model.eval()

    def read(self, pixels: np.ndarray) -> list[Scene]:
        """What each picture, uint8 (N, H, W, 3), shows; none to four objects."""
        scenes: list[Scene] = []
        with torch.no_grad():
            for start in range(0, len(pixels), _BATCH):
                logits = self.model(pixel_values_of(pixels[start : start + _BATCH]).to(self.model.device))
                scenes += scenes_of(class_numbers(logits), self.model.config)
        return scenes

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """The penultimate layer, float32 (N, D), for FID and KID."""
        parts = []
        with torch.no_grad():
            for start in range(0, len(pixels), _BATCH):
                pixel_values = pixel_values_of(pixels[start : start + _BATCH]).to(self.model.device)
                parts.append(self.model.features(pixel_values).flatten(1).float().cpu().numpy())
        width = self.model.config.features_per_place * 4
        return np.concatenate(parts) if parts else np.zeros((0, width), np.float32)


def load_judge(folder: Path, device: torch.device | str = "cpu") -> AttributeJudge:
    """The judge that was saved in ``folder``."""
    model = AttributeJudgeModel.from_pretrained(folder)
    nn.Module.to(model, device)
    return AttributeJudge(model)
