"""The loss of the VAE and the family that the loop trains.

Notation: x a picture in [-1, 1], z = E(x) its latents as the U-Net sees them, eps standard normal noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from components.contracts import Loss, Objective, Preview, Rows, StepRandom
from components.data.image_statistics import sample_figures
from components.data.pictures import grid
from components.diffusion.gathering import gathered

from .config import VaeConfig
from .model import latents_of, new_vae, peak_signal_to_noise, pixel_values_of, standardise
from .sample import decode, encode, to_pixel_values

_NUM_STATISTICS_ROWS = 1024
_NUM_PREVIEW_ROWS = 64
_NUM_SHOWN = 8


class VaeObjective:
    """|x - D(z + sigma eps)| and its square, with latents kept near mean 0, deviation 1 and uncorrelated.

    Rombach et al. 2022, section 3.1, with the batch's own moments in place of the KL term: the KL term's noise hides
    the picture from an untrained encoder, whereas ``latent_noise`` is small and fixed.
    """

    name = "vae"

    def __init__(self, vae: AutoencoderKL, config: VaeConfig) -> None:
        self.vae = vae
        self.config = config

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """All weights of encoder and decoder."""
        return self.vae.parameters()

    def loss(self, batch: Mapping[str, Any], rng: StepRandom) -> Loss:
        """The loss of ``pixel_values`` (B, 3, H, W)."""
        config, pixel_values = self.config, batch["pixel_values"]
        latents = latents_of(self.vae, pixel_values)  # (B, C, h, w)
        noise = rng.normal("latent_noise", latents.shape[1:])
        reconstruction = pixel_values_of(self.vae, latents + config.latent_noise * noise)
        error = reconstruction.float() - pixel_values
        squared, absolute = error.square().mean(), error.abs().mean()
        moments, covariance = latent_penalties(gathered(latents.float()))
        value = (
            squared
            + config.l1_weight * absolute
            + config.moment_weight * moments
            + config.covariance_weight * covariance
        )
        return Loss(value, {"squared_error": squared, "latent_moments": moments, "latent_covariance": covariance})

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""


def latent_penalties(latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far (B, C, h, w) is from mean 0 and deviation 1 (averaged over channels), and from uncorrelated channels.

    The second is the sum of squared covariances between different channels. Both are figures of the whole batch: give
    the rows of all workers.
    """
    flat = latents.transpose(0, 1).flatten(1)  # (C, B h w)
    centred = flat - flat.mean(1, keepdim=True)
    covariance = centred @ centred.T / flat.shape[1]  # (C, C)
    variance = covariance.diagonal()
    moments = flat.mean(1).square() + ((variance + 1e-6).sqrt() - 1).square()
    return moments.mean(), covariance.square().sum() - variance.square().sum()


class Vae:
    """The trainable VAE (:class:`components.contracts.Family`)."""

    def __init__(self, config: VaeConfig, train: Rows, evaluation: Rows) -> None:
        if not len(train) or not len(evaluation):
            raise ValueError(f"the VAE needs rows: {len(train)} to train on, {len(evaluation)} held out")
        self.config = config
        self.num_rows = len(train)
        self.pixels = train.pixels
        self.held_out = np.asarray(evaluation.pixels[:_NUM_PREVIEW_ROWS])
        self.vae = new_vae(config, train.pixels.shape[1])
        self.objective = VaeObjective(self.vae, config)

    def batch(self, rows: np.ndarray, rng: StepRandom) -> Mapping[str, Any]:
        """``pixel_values`` float32 (B, 3, H, W) in [-1, 1]."""
        return {"pixel_values": to_pixel_values(self.pixels[rows])}

    def objectives(self) -> Sequence[Objective]:
        """One: reconstruction with regular latents."""
        return (self.objective,)

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The autoencoder."""
        return {"vae": self.vae}

    def save(self, folder: Path) -> None:
        """Write an AutoencoderKL folder. Latents of a VAE that was trained from scratch have unit variance."""
        self._finished().save_pretrained(folder, safe_serialization=True)

    def preview(self) -> Preview:
        """Held-out originals over their reconstructions, and the reconstructions' PSNR in decibels."""
        latents = encode(self.vae, self.held_out)
        reconstruction = decode(self.vae, latents)
        error = (self.held_out.astype(np.float32) - reconstruction.astype(np.float32)) / 255
        metrics = {
            "psnr": peak_signal_to_noise(float(np.square(error).mean())),
            "latent_std": float(latents.astype(np.float32).std()),
            **sample_figures(reconstruction),
        }
        shown = np.concatenate([self.held_out[:_NUM_SHOWN], reconstruction[:_NUM_SHOWN]])
        columns = min(_NUM_SHOWN, len(self.held_out))
        return Preview(grid(shown, columns=columns, scale=max(1, 64 // shown.shape[1])), metrics)

    def _finished(self) -> AutoencoderKL:
        if self.config.pretrained:
            return self.vae
        num_rows = min(_NUM_STATISTICS_ROWS, self.num_rows)
        rows = np.linspace(0, self.num_rows - 1, num_rows).astype(np.int64)
        latents = torch.from_numpy(encode(self.vae, self.pixels[rows]).astype(np.float32)).to(self.vae.device)
        mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        return standardise(self.vae, mean, std.clamp_min(1e-3), self.config.latent_noise)
