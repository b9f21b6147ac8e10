"""The cosine noise schedule of the consistency decoder, as numbers.

What belongs here: how much signal and noise a picture holds at a timestep, and grids of timesteps. What does not: the
scalings of a network (``scalings``) and walks over a grid (``sampling``).

Notation: t in 0..T-1, x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, sigma_t = sqrt(1 / abar_t - 1) the noise's
deviation once x_t is divided by sqrt(abar_t).
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import torch

NUM_TRAIN_TIMESTEPS = 1024
TWO_STEPS = (1008, 512)  # where openai/consistencydecoder and diffusers' ConsistencyDecoderScheduler sample
_MAX_BETA = 0.999
_RHO = 7.0


@dataclass(frozen=True, slots=True, eq=False)
class NoiseSchedule:
    """A variance-preserving schedule, given by ``alphas_cumprod`` float32 (T,), falling with t."""

    alphas_cumprod: torch.Tensor

    def signal(self, timesteps: torch.Tensor) -> torch.Tensor:
        """sqrt(abar_t) for timesteps (B,), as (B, 1, 1, 1) to multiply pictures with."""
        return _at(torch.sqrt(self.alphas_cumprod), timesteps)

    def noise(self, timesteps: torch.Tensor) -> torch.Tensor:
        """sqrt(1 - abar_t), (B, 1, 1, 1)."""
        return _at(torch.sqrt(1.0 - self.alphas_cumprod), timesteps)

    def sigma(self, timesteps: torch.Tensor) -> torch.Tensor:
        """sigma_t = sqrt(1 / abar_t - 1), (B, 1, 1, 1)."""
        return _at(self.sigmas, timesteps)

    @property
    def sigmas(self) -> torch.Tensor:
        """sigma_t for every t, (T,), rising."""
        return torch.sqrt(1.0 / self.alphas_cumprod - 1)

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x_t of pictures and standard normal noise (B, C, H, W) (Ho et al. 2020, equation 4)."""
        return self.signal(timesteps) * clean + self.noise(timesteps) * noise

    def nearest(self, sigmas: torch.Tensor) -> torch.Tensor:
        """The timestep whose sigma is nearest in proportion, int64, of the same shape as ``sigmas``."""
        distance = (sigmas.log()[..., None] - self.sigmas.log().to(sigmas.device)).abs()
        return distance.argmin(-1)


@functools.cache
def cosine_schedule(num_train_timesteps: int = NUM_TRAIN_TIMESTEPS) -> NoiseSchedule:
    """Nichol and Dhariwal 2021, equation 17, with beta at most 0.999; as diffusers' ConsistencyDecoderScheduler."""

    def alpha_bar(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    ends = [step / num_train_timesteps for step in range(num_train_timesteps + 1)]
    betas = [min(1 - alpha_bar(after) / alpha_bar(before), _MAX_BETA) for before, after in itertools.pairwise(ends)]
    return NoiseSchedule(torch.cumprod(1.0 - torch.tensor(betas, dtype=torch.float32), dim=0))


def timesteps_at(schedule: NoiseSchedule, share: torch.Tensor, first: int = TWO_STEPS[0]) -> torch.Tensor:
    """The timestep at each ``share`` in [0, 1] of the way from timestep ``first`` (0) down to timestep 0 (1), int64.

    Karras et al. 2022, equation 5, with rho 7: the way is even in sigma^(1/7), so half of it has a sigma below 1.4.
    """
    sigmas = schedule.sigmas.double().to(share.device)
    top, bottom = sigmas[first] ** (1 / _RHO), sigmas[0] ** (1 / _RHO)
    return schedule.nearest((top + share.double() * (bottom - top)) ** _RHO)


def karras_timesteps(
    schedule: NoiseSchedule, num_timesteps: int, *, first: int = TWO_STEPS[0], through: int = TWO_STEPS[1]
) -> torch.Tensor:
    """A falling grid from ``first`` to 0, int64 (num_timesteps,), even as in :func:`timesteps_at`.

    Where the grid has three points or more, the inner one nearest to ``through`` becomes ``through``, because two-step
    sampling stops there. ValueError below two points, or where so many do not fit on whole timesteps.
    """
    if num_timesteps < 2:
        raise ValueError(f"num_timesteps={num_timesteps}: a grid from noise to picture has at least 2")
    grid = timesteps_at(schedule, torch.linspace(0, 1, num_timesteps), first)
    if num_timesteps > 2:
        log_sigmas = schedule.sigmas.log()
        grid[1 + (log_sigmas[grid[1:-1]] - log_sigmas[through]).abs().argmin()] = through
    if bool((grid[1:] >= grid[:-1]).any()):
        raise ValueError(f"num_timesteps={num_timesteps}: so many do not fit on whole timesteps; choose fewer")
    return grid


def _at(values: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    return values.to(timesteps.device)[timesteps].reshape(-1, 1, 1, 1)
