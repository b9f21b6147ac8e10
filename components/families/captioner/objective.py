"""The captioner's losses and the family that the loop trains.

Notation (DALL-E 3 report, section 2.1): t the tokens of a caption, i its picture, F(i) what the tower makes of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from components.contracts import Loss, Objective, Preview, Rows, StepRandom
from components.data.pictures import captioned_grid
from components.data.pixel_values import shifted
from components.diffusion.contrastive import contrastive_loss, ids_of_texts

from .config import CaptionerConfig
from .model import CaptionerParts, build_captioner, load_parts
from .sample import GeneratingCaptioner

IGNORED = -100  # label of padding
_NUM_COUNTED = 1000  # captions whose length is averaged
_NUM_LOSS_ROWS, _NUM_SHOWN = 256, 8


class FrozenTexts(nn.Module):
    """The parent CLIP's text encoder, which does not learn, and the projection of pooled tokens into its space."""

    def __init__(self, folder: Path, width: int) -> None:
        super().__init__()
        clip = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.clip = [clip.eval().requires_grad_(False)]  # in a list: no part of this module's state
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.logit_scale = clip.logit_scale.detach().exp()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.projection = nn.Linear(width, clip.config.projection_dim)

    def loss(self, tokens: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
        """Contrastive loss of the mean of the tower's tokens (B, N, C) with the texts of the batch."""
        clip = self.clip[0].to(tokens.device)
        with torch.no_grad():
            features = clip.get_text_features(batch["clip_input_ids"], batch["clip_attention_mask"]).pooler_output
        images = F.normalize(self.projection(tokens.mean(1)).float(), dim=-1)
        texts = F.normalize(features.float(), dim=-1)
        return contrastive_loss(images, texts, batch["text_ids"], self.logit_scale.to(tokens.device))

    def tokens(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """What the text encoder reads, by the names that a batch gives it."""
        encoded = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return {f"clip_{name}": encoded[name] for name in ("input_ids", "attention_mask")}


class CaptionerObjective:
    """Language modelling, L(t, i) = sum_j log P(t_j | t_<j; F(i)), and the contrastive loss beside it.

    DALL-E 3 report, equation 1 and section 2.1; Yu et al. 2022 (CoCa), equation 4.
    """

    name = "captioner"

    def __init__(
        self, parts: CaptionerParts, mean_length: float, texts: FrozenTexts | None, contrastive_weight: float
    ) -> None:
        self.parts = parts
        self.mean_length = mean_length
        self.texts = texts
        self.contrastive_weight = contrastive_weight

    def parameters(self) -> Iterable[nn.Parameter]:
        """Tower, decoder, and the contrastive projection where there is one."""
        yield from self.parts.model.parameters()
        if self.texts is not None:
            yield from self.texts.projection.parameters()

    def loss(self, batch: Mapping[str, Any], rng: StepRandom) -> Loss:
        """The loss of ``pixels`` uint8 (B, H, W, 3) with their ``labels`` int64 (B, L)."""
        language, tokens = self.language_loss(batch["pixels"], batch["labels"])
        if self.texts is None:
            return Loss(language, {"language": language})
        contrastive = self.texts.loss(tokens, batch)
        value = language + self.contrastive_weight * contrastive
        return Loss(value, {"language": language, "contrastive": contrastive})

    def language_loss(self, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed cross-entropy per caption over the captions' mean length; and the tower's tokens (B, N, C).

        It is the mean over tokens in expectation, and a plain mean over rows: two workers average to what one sees.
        Everything comes from one call of the whole model, which weights cut over a gang ask for.
        """
        settings = self.parts.model.config
        start = labels.new_full((len(labels), 1), settings.decoder_start_token_id)
        inputs = torch.cat([start, labels[:, :-1]], dim=1).masked_fill(labels == IGNORED, settings.eos_token_id)
        output = self.parts.model(pixel_values=self.parts.normalization(pixels), decoder_input_ids=inputs)
        logits = output.logits.flatten(0, 1).float()
        total = F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum")
        return total / (len(labels) * self.mean_length), output.encoder_last_hidden_state

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""


class CaptionerFamily:
    """The trainable captioner (:class:`components.contracts.Family`)."""

    def __init__(self, config: CaptionerConfig, train: Rows, evaluation: Rows, parents: Mapping[str, Path]) -> None:
        self.config = config
        self.pixels = train.pixels
        self.texts: Sequence[str | None] = train.texts.get(config.text_kind, ())
        self.usable = np.array([row for row, text in enumerate(self.texts) if text], dtype=np.int64)
        self.num_rows = len(self.usable)
        if not self.num_rows or not len(evaluation):
            raise ValueError(
                f"{self.num_rows} training rows have a text of kind {config.text_kind!r} and {len(evaluation)} rows "
                "are held out; give the data set examples of that kind (examples in dataset.yaml), or use a hub "
                "captioner"
            )
        self.evaluation = evaluation
        self.parts = _parts(config, train, parents)
        generation = self.parts.model.generation_config
        if generation.max_length is None and generation.max_new_tokens is None:  # a checkpoint that does not say
            generation.max_length = self._max_length
        self.frozen = _frozen_texts(config, self.parts, parents)
        counted = [len(ids) for ids in self._token_ids([self.texts[row] or "" for row in self.usable[:_NUM_COUNTED]])]
        self.objective = CaptionerObjective(self.parts, float(np.mean(counted)), self.frozen, config.contrastive_weight)

    def batch(self, rows: np.ndarray, rng: StepRandom) -> Mapping[str, Any]:
        """``pixels`` uint8 (B, H, W, 3), ``labels`` int64 (B, L), and what the contrastive loss reads."""
        chosen = self.usable[rows]
        texts = [self.texts[row] or "" for row in chosen]
        pixels = shifted(self.pixels[chosen], rng.uniform("shift", (2,)).cpu().numpy(), self.config.max_shift)
        batch = {"pixels": torch.from_numpy(np.ascontiguousarray(pixels)), "labels": self._labels(texts)}
        if self.frozen is None:
            return batch
        return {**batch, "text_ids": ids_of_texts(texts), **self.frozen.tokens(texts)}

    def objectives(self) -> Sequence[Objective]:
        """One: language modelling, with the contrastive loss where it is switched on."""
        return (self.objective,)

    def modules(self) -> Mapping[str, nn.Module]:
        """The captioner, and the contrastive projection where there is one."""
        modules: dict[str, nn.Module] = {"captioner": self.parts.model}
        if self.frozen is not None:
            modules["contrastive"] = self.frozen.projection
        return modules

    def save(self, folder: Path) -> None:
        """Write a folder for ``AutoModelForImageTextToText``, ``AutoTokenizer`` and ``AutoImageProcessor``."""
        self.parts.save(folder)

    def preview(self) -> Preview:
        """Held-out pictures with the captions written for them, and the loss on held-out texts where there are any."""
        held_out = self.evaluation
        pixels = np.asarray(held_out.pixels[:_NUM_SHOWN])
        written = GeneratingCaptioner(self.parts).caption(pixels, held_out.keys[:_NUM_SHOWN])
        raw = held_out.texts["caption"]
        rows = [
            {"key": key, "caption": text or "", "written": words}
            for key, text, words in zip(held_out.keys, raw, written, strict=False)
        ]
        return Preview(captioned_grid(pixels, written), self._held_out_figures(written), rows)

    def _held_out_figures(self, written: Sequence[str]) -> dict[str, float]:
        figures = {"mean_words": float(np.mean([len(text.split()) for text in written]))}
        known = self.evaluation.texts.get(self.config.text_kind, ())
        rows = [row for row, text in enumerate(known) if text][:_NUM_LOSS_ROWS]
        if rows:
            pixels = torch.from_numpy(np.array(self.evaluation.pixels[rows])).to(self.parts.model.device)
            labels = self._labels([known[row] or "" for row in rows]).to(pixels.device)
            with torch.no_grad():
                figures["language_loss"] = float(self.objective.language_loss(pixels, labels)[0])
        return figures

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        return self.parts.tokenizer(texts, truncation=True, max_length=self._max_length)["input_ids"]

    def _labels(self, texts: list[str]) -> torch.Tensor:
        encoded = self._token_ids(texts)
        labels = torch.full((len(texts), max(map(len, encoded))), IGNORED)
        for row, ids in enumerate(encoded):
            labels[row, : len(ids)] = torch.tensor(ids)
        return labels

    @property
    def _max_length(self) -> int:
        positions = getattr(self.parts.model.config.decoder, "max_position_embeddings", self.config.max_length)
        return min(self.config.max_length, positions)


def _parts(config: CaptionerConfig, train: Rows, parents: Mapping[str, Path]) -> CaptionerParts:
    """The base captioner's or the checkpoint's, or new ones.

    A new tokenizer also sees the hand-written examples, so that their words are single tokens in the fine-tunes.
    """
    source = parents.get("base_captioner") or config.pretrained
    if source:
        return load_parts(source)
    kinds = [config.text_kind, *sorted(kind for kind in train.texts if kind.endswith("_example"))]
    texts = (text for kind in dict.fromkeys(kinds) for text in train.texts[kind] if text)
    return build_captioner(config, texts, train.pixels)


def _frozen_texts(config: CaptionerConfig, parts: CaptionerParts, parents: Mapping[str, Path]) -> FrozenTexts | None:
    if not config.contrastive_weight:
        return None
    if "clip" not in parents:
        raise ValueError(
            f"contrastive_weight {config.contrastive_weight} needs the parent 'clip', which is not among "
            f"{sorted(parents) or 'no parents'}; set it to 0 for a fine-tune"
        )
    return FrozenTexts(parents["clip"], parts.model.config.encoder.hidden_size)
