"""What stands around the network: the boundary scalings that make it a denoiser.

What belongs here: c_skip, c_out, c_in and the denoised picture. What does not: the schedule's numbers (``schedule``).

Notation as in ``schedule``; F the network, D its denoised picture, sigma_d the deviation of pictures in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .schedule import NoiseSchedule

SIGMA_DATA = 0.5

# (noisy pictures (B, 3, H, W), timesteps int64 (B,)) -> denoised pictures (B, 3, H, W)
Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Scalings:
    """c_skip, c_out and c_in at some timesteps, each (B, 1, 1, 1)."""

    c_skip: torch.Tensor
    c_out: torch.Tensor
    c_in: torch.Tensor


def scalings_at(schedule: NoiseSchedule, timesteps: torch.Tensor) -> Scalings:
    """Karras et al. 2022, table 1 (EDM), for x_t that keeps unit variance: hence the factors 1 / sqrt(abar_t).

    They are the ones of diffusers' ConsistencyDecoderScheduler. c_skip -> 1 and c_out -> 0 where sigma -> 0, which is
    the boundary condition of consistency models (Song et al. 2023, equation 5); at t = 0 c_out is 0.006, less than one
    step of an 8-bit picture.
    """
    sigma = schedule.sigma(timesteps)
    unscaled = torch.sqrt(1 + sigma**2)  # 1 / sqrt(abar_t)
    total = sigma**2 + SIGMA_DATA**2
    return Scalings(
        c_skip=unscaled * SIGMA_DATA**2 / total,
        c_out=sigma * SIGMA_DATA / torch.sqrt(total),
        c_in=unscaled / torch.sqrt(total),
    )


def denoise(network: Denoiser, schedule: NoiseSchedule, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """D(x_t, t) = c_skip x_t + c_out F(c_in x_t, t), (B, 3, H, W) (Karras et al. 2022, equation 7)."""
    scalings = scalings_at(schedule, timesteps)
    return scalings.c_skip * noisy + scalings.c_out * network(scalings.c_in * noisy, timesteps).float()
