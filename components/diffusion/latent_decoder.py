"""The format that teacher and student share: a stock ConsistencyDecoderVAE, read, conditioned and asked for pictures.

What belongs here: how latents reach the decoder's U-Net, and pictures out of it. What does not: building and training
it (families).

Latents are everywhere "as the U-Net of latent diffusion sees them", that is times the VAE's scaling_factor. The stock
class multiplies what it is given by its own scaling_factor, which is the VAE's; so the pipeline's division cancels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.consistency_decoder_vae import ConsistencyDecoderVAE

from .sampling import sample_consistency, sample_ode
from .scalings import Denoiser, denoise
from .schedule import TWO_STEPS, NoiseSchedule, cosine_schedule, karras_timesteps


def load_decoder(folder: str | Path, device: torch.device | str = "cpu") -> ConsistencyDecoderVAE:
    """A stock ConsistencyDecoderVAE from a folder or the hub, in float32, that forgets where it was loaded from."""
    decoder = ConsistencyDecoderVAE.from_pretrained(folder, torch_dtype=torch.float32)
    decoder.register_to_config(_name_or_path="")
    torch.nn.Module.to(decoder, device)
    return decoder


def condition(decoder: ConsistencyDecoderVAE, latents: torch.Tensor) -> torch.Tensor:
    """Latents (B, 4, h, w) as the decoder's U-Net reads them: standardised by the class's constants, (B, 4, H, W).

    The constants are those of Stable Diffusion's latents; other latents are merely shifted and scaled by them.
    """
    means, stds = decoder.means.to(latents.device), decoder.stds.to(latents.device)
    factor = 2 ** (len(decoder.config["block_out_channels"]) - 1)
    standardised = (latents.float() - means) / stds
    return torch.nn.functional.interpolate(standardised, mode="nearest", scale_factor=float(factor))


def denoiser_of(unet: torch.nn.Module, schedule: NoiseSchedule, features: torch.Tensor) -> Denoiser:
    """The denoiser D(x_t, t) of a decoder U-Net, given ``features`` (B, 4, H, W) of :func:`condition`.

    The U-Net reads 3 channels of noisy picture and 4 of latents, and writes 6 of which the last 3, a variance that
    neither stock sampling nor this training uses, are dropped.
    """

    def network(scaled: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return unet(torch.cat([scaled, features], dim=1), timesteps).sample[:, :3]

    return lambda noisy, timesteps: denoise(network, schedule, noisy, timesteps)


def decode_latents(
    decoder: ConsistencyDecoderVAE,
    latents: np.ndarray,
    num_inference_steps: int,
    *,
    seed: int = 0,
    batch_size: int = 64,
    unet: torch.nn.Module | None = None,
) -> np.ndarray:
    """Pictures uint8 (N, H, W, 3) of latents (N, 4, h, w), by the decoder's U-Net or another ``unet`` of its format.

    Two steps are those of the stock class, at timesteps 1008 and 512 with fresh noise between them; any other number
    walks the probability-flow ODE (DDIM). The noise of row i depends on (seed, i) alone, never on the batch.
    """
    return to_pixels(
        sample_pixel_values(decoder, latents, num_inference_steps, seed=seed, batch_size=batch_size, unet=unet)
    )


@torch.no_grad()
def sample_pixel_values(
    decoder: ConsistencyDecoderVAE,
    latents: np.ndarray,
    num_inference_steps: int,
    *,
    seed: int = 0,
    batch_size: int = 64,
    unet: torch.nn.Module | None = None,
) -> torch.Tensor:
    """What :func:`decode_latents` rounds to pixels: float32 (N, 3, H, W) on the CPU, not yet clipped to [-1, 1]."""
    schedule, unet = cosine_schedule(), unet or decoder.decoder_unet
    device = next(unet.parameters()).device
    pieces = []
    for start in range(0, len(latents), batch_size):
        batch = torch.from_numpy(np.array(latents[start : start + batch_size], np.float32)).to(device)
        features = condition(decoder, batch)
        generators = row_generators(seed, range(start, start + len(batch)))
        denoiser = denoiser_of(unet, schedule, features)
        shape = (3, *features.shape[2:])

        def draw(generators: Sequence[torch.Generator] = generators, shape: tuple[int, ...] = shape) -> torch.Tensor:
            return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)

        if num_inference_steps == len(TWO_STEPS):
            pixel_values = sample_consistency(denoiser, schedule, draw, TWO_STEPS)
        else:
            pixel_values = sample_ode(denoiser, schedule, draw(), ode_timesteps(schedule, num_inference_steps))
        pieces.append(pixel_values.cpu())
    return torch.cat(pieces)


@torch.no_grad()
def decode_with_vae(folder: str | Path, latents: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
    """What the VAE's own decoder makes of the latents, uint8 (N, H, W, 3): the baseline in previews."""
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval()
    pieces = []
    for start in range(0, len(latents), batch_size):
        batch = torch.from_numpy(np.array(latents[start : start + batch_size], np.float32))
        pieces.append(to_pixels(vae.decode(batch / vae.config["scaling_factor"], return_dict=False)[0]))
    return np.concatenate(pieces)


def ode_timesteps(schedule: NoiseSchedule, num_inference_steps: int) -> list[int]:
    """Timesteps of a walk of this many network evaluations, falling from 1008."""
    if num_inference_steps < 1:
        raise ValueError(f"num_inference_steps={num_inference_steps}: at least 1 is needed")
    if num_inference_steps == 1:
        return [TWO_STEPS[0]]
    return karras_timesteps(schedule, num_inference_steps).tolist()


def row_generators(seed: int, rows: Sequence[int]) -> list[torch.Generator]:
    """One generator per row, seeded by (seed, row); stock ``decode`` takes such a list as ``generator``."""
    generators = []
    for row in rows:
        digest = hashlib.blake2b(f"decoder/{seed}/{row}".encode(), digest_size=8).digest()
        generators.append(torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1))
    return generators


def to_pixel_values(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) as float32 (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(pixel_values: torch.Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] as uint8 (B, H, W, 3), clipped and rounded."""
    scaled = (pixel_values.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
