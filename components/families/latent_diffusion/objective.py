"""The flow-matching loss and the family that the loop trains.

Notation: x_0 latents, eps noise, t in (0, 1) with noise at 1, x_t the point between them, v its velocity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.contracts import ArrayCache, Loss, Objective, Preview, Rows, StepRandom
from components.data.blend import RAW, choose_kinds, choose_texts
from components.data.image_statistics import sample_figures
from components.data.pictures import captioned_grid
from components.execution.device import best_device

from .config import LatentDiffusionConfig
from .embeddings import TextEmbeddings
from .model import NUM_TRAIN_TIMESTEPS, new_pipeline
from .sample import generate

_NUM_PREVIEW_ROWS = 64
_NUM_SHOWN = 12


class FlowMatchingObjective:
    """Mean squared error of the velocity that carries noise to latents, given a caption."""

    name = "diffusion"

    def __init__(self, text_encoder: torch.nn.Module, unet: torch.nn.Module, config: LatentDiffusionConfig) -> None:
        self.text_encoder = text_encoder
        self.unet = unet
        self.config = config

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """The U-Net's weights, and the text encoder's where it is trained on."""
        trained = [self.unet, self.text_encoder] if self.config.trains_text_encoder else [self.unet]
        return [parameter for module in trained for parameter in module.parameters()]

    def loss(self, batch: Mapping[str, Any], rng: StepRandom) -> Loss:
        """The loss of ``latents`` (B, C, h, w) and their captions.

        Captions are ``prompt_embeds`` (B, L, D), or ``input_ids`` and ``attention_mask`` (B, L).
        """
        latents = batch["latents"]
        noise = rng.normal("noise", latents.shape[1:])
        # Esser et al. 2024, section 3.1, logit-normal sampling: t = sigmoid(u), u ~ N(m, s)
        times = torch.sigmoid(self.config.time_mean + self.config.time_std * rng.normal("time", ()))  # (B,)
        return Loss(self.velocity_error(batch, noise, times))

    def velocity_error(self, batch: Mapping[str, Any], noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The loss at the given ``noise`` (B, C, h, w) and ``times`` (B,)."""
        latents = batch["latents"]
        t = times[:, None, None, None]
        noisy_latents = (1 - t) * latents + t * noise  # Liu et al. 2022, equation 1: x_t = (1 - t) x_0 + t eps
        velocity = noise - latents  # dx_t / dt
        prompt_embeds = batch["prompt_embeds"] if "prompt_embeds" in batch else self._encoded(batch)  # (B, L, D)
        predicted = self.unet(noisy_latents, times * NUM_TRAIN_TIMESTEPS, encoder_hidden_states=prompt_embeds).sample
        return (predicted.float() - velocity).square().mean()

    def _encoded(self, batch: Mapping[str, Any]) -> torch.Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.trains_text_encoder):
            return self.text_encoder(batch["input_ids"], attention_mask=batch["attention_mask"])[0]

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""


class LatentDiffusion:
    """The trainable text-to-image model (:class:`components.contracts.Family`)."""

    def __init__(
        self, config: LatentDiffusionConfig, train: Rows, evaluation: Rows, parents: Mapping[str, Path]
    ) -> None:
        self.config = config
        self.train, self.evaluation = train, evaluation
        self.latents = _latents_of(train, "train")
        self.num_rows = len(train)
        self.weights = caption_weights(config, train)
        self.pipeline = new_pipeline(config, parents, self.latents.shape[1:])
        self.tokenizer = self.pipeline.tokenizer
        self.text_encoder, self.unet = self.pipeline.text_encoder, self.pipeline.unet
        if best_device() == "cpu":
            self.unet.set_default_attn_processor()  # bf16 SDPA goes back many times slower than eager attention there
        self.text_encoder.requires_grad_(config.trains_text_encoder)
        self.pipeline.vae.eval().requires_grad_(False)
        self.objective = FlowMatchingObjective(self.text_encoder, self.unet, config)
        self.embeddings: TextEmbeddings | None = None

    def batch(self, rows: np.ndarray, rng: StepRandom) -> Mapping[str, Any]:
        """``latents`` float32 (B, C, h, w) with one caption of each row, as the objective reads it.

        The caption is synthetic in ``synthetic_fraction`` of the draws, else the original one (DALL-E 3 report, section
        3.4).
        """
        if self.embeddings is None:
            captions = choose_texts(self.train.texts, rows, self.weights, self.config.caption_dropout, rng)
            return {"latents": _float(self.latents[rows]), **self._tokens(captions)}
        kinds = choose_kinds(self.train.texts, self.weights, self.config.caption_dropout, rng)
        return {"latents": _float(self.latents[rows]), "prompt_embeds": self.embeddings.of(kinds, rows)}

    def cache_inputs(self, cache: ArrayCache) -> None:
        """Encode every caption once where the text encoder is frozen."""
        if self.config.trains_text_encoder or not self.config.caches_text_embeddings:
            return
        self.embeddings = TextEmbeddings.of_texts(self.train.texts, self.weights, self._encode, cache)

    def objectives(self) -> Sequence[Objective]:
        """One: the velocity of the flow.

        Raises ValueError for a pretrained pipeline that predicts something else.
        """
        prediction_type = self.pipeline.scheduler.config.prediction_type
        if prediction_type != "flow_prediction":
            raise ValueError(
                f"{self.config.pretrained} was trained for {prediction_type!r}; only pipelines whose scheduler has "
                "prediction_type 'flow_prediction' can be trained on"
            )
        return (self.objective,)

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """U-Net and text encoder; the VAE never changes."""
        return {"unet": self.unet, "text_encoder": self.text_encoder}

    def save(self, folder: Path) -> None:
        """Write a StableDiffusionPipeline folder."""
        self.pipeline.save_pretrained(folder, safe_serialization=True)

    def preview(self) -> Preview:
        """Pictures of held-out prompts from fixed seeds, and the held-out loss at fixed noise and times."""
        self.pipeline.to(self.unet.device)
        texts = self.evaluation.texts[max(self.weights, key=lambda kind: self.weights[kind])]
        prompts = [text for text in texts if text][:_NUM_SHOWN]
        pixels = generate(
            self.pipeline,
            prompts,
            range(len(prompts)),
            num_inference_steps=self.config.num_inference_steps,
            guidance_scale=self.config.guidance_scale,
        )
        image = captioned_grid(pixels, prompts, columns=4, scale=max(1, 96 // pixels.shape[1]))
        rows = [{"prompt": prompt, "seed": str(seed)} for seed, prompt in enumerate(prompts)]
        return Preview(image, {"held_out_loss": self._held_out_loss(), **sample_figures(pixels)}, rows)

    def _held_out_loss(self) -> float:
        latents = _latents_of(self.evaluation, "evaluation")[:_NUM_PREVIEW_ROWS]
        kind = max(self.weights, key=lambda name: self.weights[name])
        captions = [text or "" for text in self.evaluation.texts[kind][: len(latents)]]
        batch = {"latents": _float(latents), **self._tokens(captions)}
        noise = torch.randn(batch["latents"].shape, generator=torch.Generator().manual_seed(0))
        quantiles = (torch.arange(len(latents)) + 0.5) / len(latents)
        times = torch.sigmoid(self.config.time_mean + self.config.time_std * torch.special.ndtri(quantiles))
        device = self.unet.device
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        with torch.no_grad():
            return float(self.objective.velocity_error(batch, noise.to(device), times.to(device)))

    def _encode(self, captions: Sequence[str]) -> np.ndarray:
        with torch.no_grad():
            return self.objective._encoded(self._tokens(captions)).numpy()

    def _tokens(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        tokens = self.tokenizer(
            list(captions),
            padding="max_length",  # as the pipeline does: padding takes part in cross-attention
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask
        if not getattr(self.text_encoder.config, "use_attention_mask", False):
            mask = torch.ones_like(mask)  # as the pipeline does
        return {"input_ids": tokens.input_ids, "attention_mask": mask}


def caption_weights(config: LatentDiffusionConfig, rows: Rows) -> dict[str, float]:
    """How often each kind of caption is drawn.

    Raises ValueError where the rows lack a kind with a weight above 0.
    """
    weights = {config.synthetic_kind: config.synthetic_fraction, RAW: 1 - config.synthetic_fraction}
    weights = {kind: weight for kind, weight in weights.items() if weight > 0}
    if missing := [kind for kind in weights if kind not in rows.texts]:
        raise ValueError(
            f"the rows have no captions of kind {missing}, which synthetic_kind and synthetic_fraction ask for; they "
            f"have {sorted(rows.texts)}"
        )
    return weights


def _float(latents: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(latents.astype(np.float32))


def _latents_of(rows: Rows, name: str) -> np.ndarray:
    if rows.latents is None or not len(rows):
        raise ValueError(f"the {name} rows have no latents: materialize latents, and keep rows in that split")
    return rows.latents
