"""The teacher's denoising loss and the family that the loop trains.

Notation: x_0 a picture in [-1, 1], z its latents, t a timestep, eps standard normal noise, x_t the noisy picture,
sigma_t its noise's deviation (``components.diffusion.schedule``), D(x_t, t, z) the denoised picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.consistency_decoder_vae import ConsistencyDecoderVAE

from components.contracts import Loss, Objective, Preview, Rows, StepRandom
from components.data.image_statistics import detail_ratio, psnr, sample_figures
from components.data.pictures import grid
from components.diffusion.latent_decoder import condition, decode_with_vae, denoiser_of, to_pixel_values
from components.diffusion.schedule import NoiseSchedule, cosine_schedule, timesteps_at

from .config import DiffusionDecoderConfig
from .linear_start import start_as_linear_denoiser
from .model import new_decoder
from .sample import decode

_NUM_FIT_ROWS = 128
_NUM_PREVIEW_ROWS = 16
_NUM_SHOWN = 8


class DenoisingObjective:
    """Weighted squared error of the denoised picture, given its latents (Karras et al. 2022, equation 2)."""

    name = "denoising"

    def __init__(self, decoder: ConsistencyDecoderVAE, config: DiffusionDecoderConfig) -> None:
        self.decoder = decoder
        self.config = config
        self.schedule = cosine_schedule()

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """The U-Net's weights."""
        return self.decoder.decoder_unet.parameters()

    def loss(self, batch: Mapping[str, Any], rng: StepRandom) -> Loss:
        """The loss of ``pixel_values`` (B, 3, H, W) with their ``latents`` (B, 4, h, w)."""
        pixel_values, latents = batch["pixel_values"], batch["latents"]
        # as dense as the timesteps of a sampler are, so that no step of it matters more than another
        timesteps = timesteps_at(self.schedule, rng.uniform("timestep"))  # (B,)
        noise = rng.normal("noise", pixel_values.shape[1:])
        if self.config.latent_noise:
            latents = latents + self.config.latent_noise * rng.normal("latent_noise", latents.shape[1:])
        denoiser = denoiser_of(self.decoder.decoder_unet, self.schedule, condition(self.decoder, latents))
        denoised = denoiser(self.schedule.add_noise(pixel_values, noise, timesteps), timesteps)
        error = (denoised - pixel_values).square().mean((1, 2, 3))  # (B,)
        weight = noise_weight(self.schedule, timesteps, self.config.residual_sigma)
        return Loss((weight * error).mean(), {"squared_error": error.mean()})

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""


def noise_weight(schedule: NoiseSchedule, timesteps: torch.Tensor, residual_sigma: float) -> torch.Tensor:
    """lambda(t) = 1 + s^2 / sigma_t^2, (B,), with s the deviation that the latents leave open.

    Karras et al. 2022, section 5, weight by (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 to make the first error the
    same at every noise level. A decoder that knows the latents has s left where an unconditional model has sigma_data;
    with s in its place (and times s^2) high noise keeps its share of the loss: there lies what the first steps decide.
    """
    return 1 + (residual_sigma / schedule.sigma(timesteps).flatten()) ** 2


class DiffusionDecoder:
    """The trainable teacher (:class:`components.contracts.Family`)."""

    def __init__(
        self, config: DiffusionDecoderConfig, train: Rows, evaluation: Rows, parents: Mapping[str, Path]
    ) -> None:
        self.config = config
        self.num_rows = len(train)
        self.pixels, self.latents = train.pixels, _latents_of(train, "training")
        self.decoder = new_decoder(config, parents["vae"])
        _check_sides(self.decoder, train, self.latents)
        if config.starts_as_linear and not config.pretrained:
            start_as_linear_denoiser(self.decoder, train.pixels[:_NUM_FIT_ROWS], self.latents[:_NUM_FIT_ROWS])
        self.objective = DenoisingObjective(self.decoder, config)
        self.originals = np.asarray(evaluation.pixels[:_NUM_PREVIEW_ROWS])
        self.shown_latents = np.asarray(_latents_of(evaluation, "held-out")[:_NUM_PREVIEW_ROWS])
        self.vae_pictures = decode_with_vae(parents["vae"], self.shown_latents)

    def batch(self, rows: np.ndarray, rng: StepRandom) -> Mapping[str, Any]:
        """``pixel_values`` float32 (B, 3, H, W) in [-1, 1] and ``latents`` float32 (B, 4, h, w)."""
        return {
            "pixel_values": to_pixel_values(self.pixels[rows]),
            "latents": torch.from_numpy(np.asarray(self.latents[rows], np.float32)),
        }

    def objectives(self) -> Sequence[Objective]:
        """One: denoising."""
        return (self.objective,)

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The U-Net; the encoder beside it is never moved or trained."""
        return {"unet": self.decoder.decoder_unet}

    def save(self, folder: Path) -> None:
        """Write a ConsistencyDecoderVAE folder."""
        self.decoder.save_pretrained(folder, safe_serialization=True)

    def preview(self) -> Preview:
        """Rows of held-out originals, the VAE's decode, the teacher's, and the teacher's in two undistilled steps."""
        many = decode(self.decoder, self.shown_latents, self.config.num_inference_steps)
        two = decode(self.decoder, self.shown_latents, 2)
        rows = {"vae": self.vae_pictures, "teacher": many, "teacher_2": two}
        metrics = {f"{name}_psnr": float(psnr(row, self.originals).mean()) for name, row in rows.items()}
        metrics |= {f"{name}_detail_ratio": detail_ratio(row, self.originals) for name, row in rows.items()}
        metrics |= sample_figures(many)
        shown = np.concatenate([row[:_NUM_SHOWN] for row in (self.originals, *rows.values())])
        columns = min(_NUM_SHOWN, len(self.originals))
        return Preview(grid(shown, columns=columns, scale=max(1, 128 // shown.shape[1])), metrics)


def _latents_of(rows: Rows, which: str) -> np.ndarray:
    if rows.latents is None or not len(rows):
        raise ValueError(f"the decoder's {which} rows ({len(rows)}) need latents: materialize latents first")
    return rows.latents


def _check_sides(decoder: ConsistencyDecoderVAE, rows: Rows, latents: np.ndarray) -> None:
    factor = 2 ** (len(decoder.config["block_out_channels"]) - 1)
    expected = (rows.pixels.shape[1] // factor, rows.pixels.shape[2] // factor)
    if latents.shape[2:] != expected:
        raise ValueError(
            f"latents are {latents.shape[2]}x{latents.shape[3]}, but pictures of {rows.pixels.shape[1]} px and a VAE "
            f"that divides by {factor} make {expected[0]}x{expected[1]}: materialize latents again with this vae"
        )
