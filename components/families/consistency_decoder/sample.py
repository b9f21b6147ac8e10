"""What the student does: latents to pictures in two steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.consistency_decoder_vae import ConsistencyDecoderVAE

from components.diffusion.latent_decoder import decode_latents, load_decoder


def load_consistency_decoder(folder: str | Path, device: torch.device | str = "cpu") -> ConsistencyDecoderVAE:
    """The student of a model folder, ready to decode on ``device``."""
    return load_decoder(folder, device).eval().requires_grad_(False)


def decode(
    decoder: ConsistencyDecoderVAE,
    latents: np.ndarray,
    num_inference_steps: int = 2,
    *,
    seed: int = 0,
    batch_size: int = 64,
) -> np.ndarray:
    """Pictures uint8 (N, H, W, 3) of latents (N, 4, h, w), as latent diffusion sees them.

    ValueError for any number of steps but two: the student was distilled for no other. The same seed gives the same
    pictures in batches of any size.
    """
    if num_inference_steps != 2:
        raise ValueError(f"num_inference_steps={num_inference_steps}: a consistency decoder samples in 2 steps")
    return decode_latents(decoder, latents, num_inference_steps, seed=seed, batch_size=batch_size)
