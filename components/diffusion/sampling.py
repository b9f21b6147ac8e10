"""From noise to picture: single solver steps, whole walks along the ODE, and consistency sampling.

What belongs here: samplers over any denoiser. What does not: networks, their conditioning, seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from .scalings import Denoiser
from .schedule import NoiseSchedule

Solver = Callable[[Denoiser, NoiseSchedule, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def ddim_step(
    denoiser: Denoiser, schedule: NoiseSchedule, noisy: torch.Tensor, timesteps: torch.Tensor, towards: torch.Tensor
) -> torch.Tensor:
    """x_s of x_t on the probability-flow ODE, one evaluation (Song et al. 2021, DDIM, equation 12 with sigma 0).

    ``timesteps`` t and ``towards`` s < t: int64 (B,); they may differ from row to row.
    """
    return _move(schedule, denoiser(noisy, timesteps), noisy, timesteps, towards)


def heun_step(
    denoiser: Denoiser, schedule: NoiseSchedule, noisy: torch.Tensor, timesteps: torch.Tensor, towards: torch.Tensor
) -> torch.Tensor:
    """Like :func:`ddim_step`, second order with two evaluations (Karras et al. 2022, algorithm 1).

    With y = x_t / sqrt(abar_t), DDIM is Euler's method on dy / dsigma = (y - D) / sigma; Heun's takes the average of
    that slope at t and at the point where Euler's step lands.
    """
    first = denoiser(noisy, timesteps)
    landed = _move(schedule, first, noisy, timesteps, towards)
    second = denoiser(landed, towards)
    start, end = noisy / schedule.signal(timesteps), landed / schedule.signal(towards)
    sigma, sigma_end = schedule.sigma(timesteps), schedule.sigma(towards)
    slope = ((start - first) / sigma + (end - second) / sigma_end) / 2
    return schedule.signal(towards) * (start + (sigma_end - sigma) * slope)


def sample_ode(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    noise: torch.Tensor,
    timesteps: Sequence[int],
    solver: Solver = ddim_step,
) -> torch.Tensor:
    """Walk the probability-flow ODE down ``timesteps`` and return the picture denoised at the last of them.

    ``noise``: standard normal (B, 3, H, W), the only randomness. The network is evaluated once per timestep (DDIM).
    """
    rows = torch.ones(len(noise), dtype=torch.int64, device=noise.device)
    x = schedule.noise(rows * timesteps[0]) * noise  # as in the stock scheduler, the first x_t holds no signal
    for t, s in itertools.pairwise(timesteps):
        x = solver(denoiser, schedule, x, rows * t, rows * s)
    return denoiser(x, rows * timesteps[-1])


def sample_consistency(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    draw: Callable[[], torch.Tensor],
    timesteps: Sequence[int],
) -> torch.Tensor:
    """Multistep consistency sampling (Song et al. 2023, algorithm 1): denoise, add fresh noise, denoise again.

    ``draw`` gives standard normal noise (B, 3, H, W), once for each timestep. With timesteps 1008 and 512 it is what
    diffusers' ConsistencyDecoderScheduler does.
    """
    noise = draw()
    rows = torch.ones(len(noise), dtype=torch.int64, device=noise.device)
    denoised = torch.zeros_like(noise)
    for number, t in enumerate(timesteps):
        noise = noise if number == 0 else draw()
        denoised = denoiser(schedule.add_noise(denoised, noise, rows * t), rows * t)
    return denoised


def _move(
    schedule: NoiseSchedule,
    denoised: torch.Tensor,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    towards: torch.Tensor,
) -> torch.Tensor:
    """sqrt(abar_s) D + sqrt(1 - abar_s) (x_t - sqrt(abar_t) D) / sqrt(1 - abar_t)."""
    predicted_noise = (noisy - schedule.signal(timesteps) * denoised) / schedule.noise(timesteps)
    return schedule.add_noise(denoised, predicted_noise, towards)
