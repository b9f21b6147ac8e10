"""Consistency distillation of the diffusion decoder and the family that the loop trains.

Notation of Song et al. 2023 (arXiv:2303.01469): x a picture in [-1, 1], z its latents, t_1 < ... < t_N the grid of
timesteps, x_t the noisy picture, f_theta the student, f_theta- its target (a moving average), phi the teacher.

Some rows learn from the picture instead: f_theta(x_t, t) is drawn to x itself, at the timesteps of sampling. That is
the denoising term by which a student surpasses its teacher in consistency trajectory models (Kim et al. 2024,
arXiv:2310.02279), and consistency training with t_n = 0, where f(x, 0) = x (Geng et al. 2025, arXiv:2406.14548). Where
latents determine the picture, as they nearly do here, it has the same optimum as the distillation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from components.contracts import Loss, Objective, Preview, Rows, StepRandom
from components.data.image_statistics import detail_ratio, psnr, sample_figures
from components.data.pictures import grid
from components.diffusion.latent_decoder import condition, decode_latents, decode_with_vae, denoiser_of, to_pixel_values
from components.diffusion.sampling import Solver, ddim_step, heun_step
from components.diffusion.schedule import TWO_STEPS, cosine_schedule, karras_timesteps

from .config import ConsistencyDecoderConfig
from .model import Distillation, new_distillation
from .sample import decode

_SOLVERS: Mapping[str, Solver] = {"ddim": ddim_step, "heun": heun_step}
_NUM_PREVIEW_ROWS = 16
_NUM_SHOWN = 8


class ConsistencyObjective:
    """The distance of f_theta at t_{n+1} to f_theta- at t_n, one teacher's step further (algorithm 2), or to x."""

    name = "consistency"

    def __init__(self, distillation: Distillation, config: ConsistencyDecoderConfig) -> None:
        self.decoder, self.student = distillation.decoder, distillation.decoder.decoder_unet
        self.teacher, self.target = distillation.teacher, distillation.target
        self.config = config
        self.schedule = cosine_schedule()
        self.solver = _SOLVERS[config.solver]

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """The student's weights, theta."""
        return self.student.parameters()

    def loss(self, batch: Mapping[str, Any], rng: StepRandom) -> Loss:
        """The loss of ``pixel_values`` (B, 3, H, W) with their ``latents`` (B, 4, h, w)."""
        pixel_values, latents = batch["pixel_values"], batch["latents"]
        if self.config.latent_noise:
            latents = latents + self.config.latent_noise * rng.normal("latent_noise", latents.shape[1:])
        features = condition(self.decoder, latents)
        is_data = rng.uniform("kind") < self.config.data_fraction  # (B,)
        num_scales = num_scales_at(rng.step, self.config)
        later, earlier = self._timesteps(is_data, num_scales, rng)  # t_{n+1} and t_n
        noise = rng.normal("noise", pixel_values.shape[1:])
        noisy = self.schedule.add_noise(pixel_values, noise, later)  # x_{t_{n+1}} ~ N(x; t_{n+1}^2 I), in VP form
        aim = pixel_values.clone()  # of the rows that learn from data
        rows = torch.nonzero(~is_data).flatten()
        if len(rows):
            aim[rows] = self._distilled(noisy[rows], later[rows], earlier[rows], features[rows]).to(aim.dtype)
        elif isinstance(next(self.teacher.parameters()), DTensor):  # others need this one to gather cut weights
            self._distilled(noisy[:1], later[:1], earlier[:1], features[:1])
        denoised = denoiser_of(self.student, self.schedule, features)(noisy, later)  # f_theta(x_{t_{n+1}}, t_{n+1})
        distance = pseudo_huber(denoised, aim, self.config.huber_scale)  # equation 7 with lambda = 1
        return Loss(distance.mean(), {"num_scales": torch.tensor(float(num_scales))})

    def _timesteps(self, is_data: torch.Tensor, num_scales: int, rng: StepRandom) -> tuple[torch.Tensor, torch.Tensor]:
        """t_{n+1} and t_n of each row, int64 (B,): neighbours on the grid, or a timestep of sampling and 0."""
        falling = karras_timesteps(self.schedule, num_scales).to(is_data.device)  # t_N, ..., t_1
        uniform = rng.uniform("scale")
        place = (uniform * (num_scales - 1)).long()  # algorithm 2: n ~ U[1, N - 1]
        first, second = (torch.full_like(place, timestep) for timestep in TWO_STEPS)
        of_sampling = torch.where(uniform < self.config.first_step_fraction, first, second)
        later = torch.where(is_data, of_sampling, falling[place])
        return later, torch.where(is_data, torch.zeros_like(later), falling[place + 1])

    @torch.no_grad()
    def _distilled(
        self, noisy: torch.Tensor, later: torch.Tensor, earlier: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        """f_theta-(x^phi_{t_n}, t_n): what the target makes of the teacher's step (algorithm 2)."""
        teacher, target = (denoiser_of(unet, self.schedule, features) for unet in (self.teacher, self.target))
        solved = self.solver(teacher, self.schedule, noisy, later, earlier)  # x^phi_{t_n}, equation 6
        return target(solved, earlier)

    def after_step(self, step: int) -> None:
        """theta- <- mu theta- + (1 - mu) theta (equation 8)."""
        with torch.no_grad():
            for mean, parameter in zip(self.target.parameters(), self.student.parameters(), strict=True):
                mean.lerp_(parameter, 1 - self.config.target_decay)


def pseudo_huber(ours: torch.Tensor, theirs: torch.Tensor, scale: float) -> torch.Tensor:
    """sqrt(|x - y|^2 + c^2) - c of each picture, (B,), over the square root of its number of values d.

    Song and Dhariwal 2024 (arXiv:2310.14189), section 3.3, with c = ``scale`` sqrt(d) and their scale 0.00054. The
    division makes pictures of all sizes give losses of one size.
    """
    mean_square = (ours.float() - theirs.float()).square().mean((1, 2, 3))  # |x - y|^2 / d
    return torch.sqrt(mean_square + scale**2) - scale


def num_scales_at(step: int, config: ConsistencyDecoderConfig) -> int:
    """N(k) = min(s_0 2^floor(k / K'), s_1) (Song and Dhariwal 2024, section 3.4).

    s_0 is ``min_scales``, s_1 ``max_scales``; K' spreads the doublings evenly, the last at ``num_annealing_steps``.
    """
    num_doublings = math.ceil(math.log2(config.max_scales / config.min_scales))
    if not num_doublings or step >= config.num_annealing_steps:
        return config.max_scales
    interval = config.num_annealing_steps / num_doublings
    return min(config.min_scales * 2 ** math.floor(step / interval), config.max_scales)


class ConsistencyDecoder:
    """The trainable student (:class:`components.contracts.Family`)."""

    def __init__(
        self, config: ConsistencyDecoderConfig, train: Rows, evaluation: Rows, parents: Mapping[str, Path]
    ) -> None:
        if train.latents is None or evaluation.latents is None or not len(train) or not len(evaluation):
            raise ValueError(
                f"the decoder's rows ({len(train)} to train on, {len(evaluation)} held out) need latents: "
                "materialize latents first"
            )
        self.config = config
        self.num_rows = len(train)
        self.pixels, self.latents = train.pixels, train.latents
        self.distillation = new_distillation(config, parents["diffusion_decoder"])
        self.objective = ConsistencyObjective(self.distillation, config)
        self.originals = np.asarray(evaluation.pixels[:_NUM_PREVIEW_ROWS])
        self.shown_latents = np.asarray(evaluation.latents[:_NUM_PREVIEW_ROWS])
        self.vae_pictures = decode_with_vae(parents["vae"], self.shown_latents)
        self._teacher_pictures: np.ndarray | None = None

    def batch(self, rows: np.ndarray, rng: StepRandom) -> Mapping[str, Any]:
        """``pixel_values`` float32 (B, 3, H, W) in [-1, 1] and ``latents`` float32 (B, 4, h, w)."""
        return {
            "pixel_values": to_pixel_values(self.pixels[rows]),
            "latents": torch.from_numpy(np.asarray(self.latents[rows], np.float32)),
        }

    def objectives(self) -> Sequence[Objective]:
        """One: consistency distillation."""
        return (self.objective,)

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """Student, target and teacher U-Nets; the encoder beside them is never moved or trained."""
        return {
            "student": self.distillation.decoder.decoder_unet,
            "target": self.distillation.target,
            "teacher": self.distillation.teacher,
        }

    def save(self, folder: Path) -> None:
        """Write the student as a ConsistencyDecoderVAE folder."""
        self.distillation.decoder.save_pretrained(folder, safe_serialization=True)

    def preview(self) -> Preview:
        """Rows of held-out originals, the VAE's decode, the teacher's in many steps, the student's in two."""
        student = decode(self.distillation.decoder, self.shown_latents)
        rows = {"vae": self.vae_pictures, "teacher": self._decoded_by_teacher(), "consistency": student}
        metrics = {f"{name}_psnr": float(psnr(row, self.originals).mean()) for name, row in rows.items()}
        metrics |= {f"{name}_detail_ratio": detail_ratio(row, self.originals) for name, row in rows.items()}
        metrics |= sample_figures(student)
        shown = np.concatenate([row[:_NUM_SHOWN] for row in (self.originals, *rows.values())])
        columns = min(_NUM_SHOWN, len(self.originals))
        return Preview(grid(shown, columns=columns, scale=max(1, 128 // shown.shape[1])), metrics)

    def _decoded_by_teacher(self) -> np.ndarray:
        """The teacher's pictures, which never change; made once, because many steps are slow."""
        if self._teacher_pictures is None:
            decoder, teacher = self.distillation.decoder, self.distillation.teacher
            self._teacher_pictures = decode_latents(
                decoder, self.shown_latents, self.config.num_teacher_steps, unet=teacher
            )
        return self._teacher_pictures
