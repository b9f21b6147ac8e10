"""CLIP's loss and the family that the loop trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.contracts import Loss, Objective, Preview, Rows, StepRandom
from components.data.blend import RAW, choose_texts
from components.data.pictures import captioned_grid
from components.data.pixel_values import shifted
from components.diffusion.contrastive import contrastive_loss, ids_of_texts

from .config import ClipConfig
from .model import ClipParts, build_clip
from .sample import ClipScorer

MAX_LOGIT_SCALE = 4.6052  # ln 100: Radford et al. 2021, section 2.5, clip the scale at 100
_NUM_PREVIEW_ROWS, _NUM_SHOWN = 256, 8


class ClipObjective:
    """Symmetric cross-entropy between the pictures and the texts of a batch."""

    name = "clip"

    def __init__(self, parts: ClipParts) -> None:
        self.parts = parts

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """Both encoders, both projections and the temperature."""
        return self.parts.model.parameters()

    def loss(self, batch: Mapping[str, Any], rng: StepRandom) -> Loss:
        """The loss of ``pixels`` uint8 (B, H, W, 3) with their tokens and ``text_ids``."""
        images = self.parts.embed_images(batch["pixels"])
        texts = self.parts.embed_tokens(batch["input_ids"], batch["attention_mask"])
        scale = self.parts.model.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
        value = contrastive_loss(images, texts, batch["text_ids"], scale)
        return Loss(value, {"logit_scale": scale})

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""


class ClipFamily:
    """The trainable CLIP (:class:`components.contracts.Family`)."""

    def __init__(self, config: ClipConfig, train: Rows, evaluation: Rows) -> None:
        if not len(train) or not len(evaluation):
            raise ValueError(f"CLIP needs rows: {len(train)} to train on, {len(evaluation)} held out")
        self.config = config
        self.train, self.evaluation = train, evaluation
        self.num_rows = len(train)
        self.kinds = tuple(kind for kind in config.text_kinds if kind in train.texts) or (RAW,)
        texts = (text for kind in self.kinds for text in train.texts[kind] if text)
        self.parts = build_clip(config, texts, train.pixels.shape[1])
        self.objective = ClipObjective(self.parts)

    def batch(self, rows: np.ndarray, rng: StepRandom) -> Mapping[str, Any]:
        """``pixels`` uint8 (B, H, W, 3), ``input_ids`` and ``attention_mask`` (B, L), ``text_ids`` (B,)."""
        texts = choose_texts(self.train.texts, rows, dict.fromkeys(self.kinds, 1.0), 0.0, rng)
        draws = rng.uniform("shift", (2,)).cpu().numpy()
        pixels = shifted(self.train.pixels[rows], draws, self.config.max_shift)
        return {
            "pixels": torch.from_numpy(np.ascontiguousarray(pixels)),
            "text_ids": ids_of_texts(texts),
            **self.parts.tokens(texts),
        }

    def objectives(self) -> Sequence[Objective]:
        """One: the contrastive loss."""
        return (self.objective,)

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The CLIPModel."""
        return {"clip": self.parts.model}

    def save(self, folder: Path) -> None:
        """Write a folder for ``AutoModel``, ``AutoTokenizer`` and ``CLIPProcessor``."""
        self.parts.save(folder)

    def preview(self) -> Preview:
        """Held-out pictures with the text that is nearest to each, and the share whose own text is.

        ``retrieval_at_1`` is over up to 256 held-out rows; a text that reads the same as the row's own counts as it.
        """
        held_out, kind = self.evaluation, self.kinds[0]
        pixels = np.asarray(held_out.pixels[:_NUM_PREVIEW_ROWS])
        own = [text or "" for text in held_out.texts[kind][: len(pixels)]]
        scorer = ClipScorer(self.parts)
        cosines = scorer.image_embeds(pixels) @ scorer.text_embeds(own).T  # (N, N)
        nearest = [own[row] for row in cosines.argmax(axis=1)]
        hits = np.array([found == text for found, text in zip(nearest, own, strict=True)])
        return Preview(
            image=captioned_grid(pixels[:_NUM_SHOWN], nearest[:_NUM_SHOWN]),
            metrics={
                "retrieval_at_1": float(hits.mean()),
                "score": float(100 * cosines.diagonal().mean()),
                "shuffled_score": float(100 * np.roll(cosines, 1, axis=1).diagonal().mean()),
            },
            rows=[
                {"key": key, "text": text, "nearest": found}
                for key, text, found in zip(held_out.keys[:_NUM_SHOWN], own, nearest, strict=False)
            ],
        )
