"""The training loop. It yields a typed step; logging, previews and progress belong to the caller.

Objectives give losses, the loop owns optimizers, schedules, precision, accumulation, clipping, EMA, checkpoints and the
gang's gradient average. A family never sees an optimizer, and the loop never asks which family it trains.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch.utils.flop_counter import FlopCounterMode

from components.contracts import Family, Gang, Loss, Objective
from components.execution.device import fast_dtype, peak_flops

from .checkpoint import CheckpointFolder
from .config import TrainingConfig
from .randomness import SeededRandom, rows_at


@dataclass(frozen=True, slots=True)
class TrainStep:
    """One finished optimizer step. ``scalars`` is filled every ``log_every`` steps, so that others need no sync."""

    step: int  # counts from 1
    num_steps: int
    learning_rate: float
    rows_per_second: float
    utilisation: float  # operations of the networks per second over those of a large matrix product; 0 where unknown
    scalars: Mapping[str, float] = field(default_factory=dict)


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite; the message names objective, step and rows."""


class Trainer:
    """The state of one training: a family, an optimizer per objective and the averaged weights."""

    def __init__(
        self,
        family: Family,
        config: TrainingConfig,
        *,
        gang: Gang | None = None,
        device: torch.device | str = "cpu",
        checkpoints: CheckpointFolder | None = None,
    ) -> None:
        self.family = family
        self.config = config
        self.gang = gang or Gang()
        self.device = torch.device(device)
        self.checkpoints = checkpoints
        self.step = 0
        self._flops = 0
        self._rows_per_micro_batch = self._split_batch()
        for module in family.modules().values():
            module.to(self.device)
        fast = fast_dtype(self.device) if config.precision == "auto" else None
        self._uses_bf16 = config.precision == "bf16" or fast == torch.bfloat16
        self.movers = [_Mover(objective, config) for objective in family.objectives()]

    def _split_batch(self) -> int:
        parts = self.gang.world_size * self.config.gradient_accumulation
        if self.config.batch_size % parts:
            raise ValueError(
                f"batch_size {self.config.batch_size} cannot be cut into {self.gang.world_size} workers x "
                f"{self.config.gradient_accumulation} micro-batches; choose a multiple of {parts}"
            )
        return self.config.batch_size // parts

    def run(self) -> Iterator[TrainStep]:
        """Train from the checkpoint (if there is one) to ``num_steps``; one :class:`TrainStep` after each step."""
        config = self.config
        torch.set_num_threads(config.num_threads)
        self._resume()
        if self.step < config.num_steps:
            self._flops = self._count_flops()
        started, first = time.perf_counter(), self.step
        while self.step < config.num_steps:
            is_logged = (self.step + 1) % config.log_every == 0 or self.step + 1 == config.num_steps or self.step == 0
            scalars = self._step(is_logged)
            self.step += 1
            if config.checkpoint_every and self.step % config.checkpoint_every == 0 and self.step < config.num_steps:
                self._save()
            seconds = (time.perf_counter() - started) / (self.step - first)
            utilisation = self._flops / seconds / self._peak_flops() if is_logged else 0.0
            rate = config.batch_size / seconds
            yield TrainStep(self.step, config.num_steps, self.movers[0].learning_rate, rate, utilisation, scalars)

    def _count_flops(self) -> int:
        """Operations of one step of this worker in matrix products and convolutions, forward and backward.

        Counted on a step of its own whose gradients are thrown away, because counting changes the last bits.
        """
        rows = self._rows_of(self.step)[: self._rows_per_micro_batch]
        with FlopCounterMode(display=False) as counter:
            for mover in self.movers:
                self._loss_of(mover, rows).value.backward()
                mover.optimizer.zero_grad(set_to_none=True)
        return counter.get_total_flops() * self.config.gradient_accumulation

    def _peak_flops(self) -> float:
        dtype = torch.bfloat16 if self._uses_bf16 else torch.float32
        return peak_flops(self.device.type, dtype, self.config.num_threads)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Within the block the models hold the EMA weights (where there are any), and are in eval mode."""
        modules = self.family.modules().values()
        was_training = [module.training for module in modules]
        for module in modules:
            module.eval()
        for mover in self.movers:
            mover.swap_in_average()
        try:
            with torch.no_grad():
                yield
        finally:
            for mover in self.movers:
                mover.swap_out_average()
            for module, training in zip(modules, was_training, strict=True):
                module.train(training)

    def _rows_of(self, step: int) -> np.ndarray:
        """The rows of this worker's share of a step."""
        config, gang = self.config, self.gang
        rows = rows_at(step, batch_size=config.batch_size, num_rows=self.family.num_rows, seed=config.seed)
        per_worker = config.batch_size // gang.world_size
        return rows[gang.rank * per_worker : (gang.rank + 1) * per_worker]

    def _loss_of(self, mover: "_Mover", rows: np.ndarray) -> Loss:
        """One objective's loss of one micro-batch at the present step."""
        rng = SeededRandom(self.config.seed, self.step, rows, self.device)
        batch = {name: _to(value, self.device) for name, value in self.family.batch(rows, rng).items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._uses_bf16):
            return mover.objective.loss(batch, rng)

    def _step(self, is_logged: bool) -> dict[str, float]:
        config, gang = self.config, self.gang
        mine = self._rows_of(self.step)
        collected: dict[str, torch.Tensor] = {}
        for mover in self.movers:
            for first in range(0, len(mine), self._rows_per_micro_batch):
                loss = self._loss_of(mover, mine[first : first + self._rows_per_micro_batch])
                (loss.value / config.gradient_accumulation).backward()
                if is_logged:
                    _accumulate(collected, mover.objective.name, loss.value, loss.scalars, config)
            norm = mover.update(gang)
            if is_logged:
                collected[f"{mover.objective.name}/grad_norm"] = norm
                self._check_finite(mover.objective, norm, mine)
            mover.objective.after_step(self.step)
        return {name: float(value) for name, value in _averaged(collected, gang).items()}

    def _check_finite(self, objective: Objective, norm: torch.Tensor, rows: Any) -> None:
        if not bool(torch.isfinite(norm)):
            raise NonFiniteLoss(
                f"objective {objective.name!r} has a gradient of norm {float(norm)} at step {self.step} on rows "
                f"{rows[:8].tolist()}...; lower the learning rate or use precision fp32"
            )

    def _save(self) -> None:
        if self.checkpoints is None or self.gang.rank != 0:
            return
        self.checkpoints.save(
            {
                "step": self.step,
                "modules": {name: module.state_dict() for name, module in self.family.modules().items()},
                "movers": [mover.state_dict() for mover in self.movers],
            }
        )

    def _resume(self) -> None:
        state = self.checkpoints.load() if self.checkpoints else None
        if state is None:
            return
        for name, module in self.family.modules().items():
            module.load_state_dict(state["modules"][name])
        for mover, saved in zip(self.movers, state["movers"], strict=True):
            mover.load_state_dict(saved)
        self.step = state["step"]


class _Mover:
    """An objective with what moves its parameters: AdamW, learning-rate schedule, clipping, EMA."""

    def __init__(self, objective: Objective, config: TrainingConfig) -> None:
        self.objective = objective
        self.config = config
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.lr_scheduler = get_scheduler(
            config.lr_schedule if config.lr_schedule != "constant" else "constant_with_warmup",
            self.optimizer,
            num_warmup_steps=config.num_warmup_steps,
            num_training_steps=max(1, config.num_steps),
        )
        self.ema = EMAModel(self.parameters, decay=config.ema_decay, foreach=True) if config.ema_decay else None

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self.lr_scheduler.get_last_lr()[0])

    def update(self, gang: Gang) -> torch.Tensor:
        """Average gradients over the gang, clip, step; the gradients' norm before clipping."""
        if gang.world_size > 1:
            for parameter in self.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)
                parameter.grad /= gang.world_size
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        self.lr_scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.step(self.parameters)
        return norm

    def swap_in_average(self) -> None:
        if self.ema and self.ema.optimization_step:
            self.ema.store(self.parameters)
            self.ema.copy_to(self.parameters)

    def swap_out_average(self) -> None:
        if self.ema and self.ema.optimization_step:
            self.ema.restore(self.parameters)

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _accumulate(
    collected: dict[str, torch.Tensor],
    name: str,
    value: torch.Tensor,
    scalars: Mapping[str, torch.Tensor],
    config: TrainingConfig,
) -> None:
    for key, scalar in {"loss": value, **scalars}.items():
        share = scalar.detach().float() / config.gradient_accumulation
        collected[f"{name}/{key}"] = collected.get(f"{name}/{key}", torch.zeros_like(share)) + share


def _averaged(collected: dict[str, torch.Tensor], gang: Gang) -> dict[str, torch.Tensor]:
    if gang.world_size > 1:
        for value in collected.values():
            dist.all_reduce(value)
            value /= gang.world_size
    return collected
