"""The training loop. It yields a typed step; logging, previews and progress belong to the caller.

Objectives give losses, the loop owns optimizers, schedules, precision, accumulation, clipping, EMA, checkpoints and
what a gang shares. A family never sees an optimizer, and the loop never asks which family it trains.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch._utils import _flatten_dense_tensors, _take_tensors, _unflatten_dense_tensors
from torch.utils.flop_counter import FlopCounterMode

from components.contracts import Family, Gang, Loss, Objective
from components.execution.device import fast_dtype, peak_flops
from components.execution.usage import Usage

from . import sharding
from .checkpoint import Checkpoints
from .compiling import compile_in_place, eagerly
from .config import TrainingConfig
from .prefetch import Prefetch
from .randomness import SeededRandom, moved, rows_at, seed_of

_BUCKET_BYTES = 32 * 2**20


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
    """The state of one training: a family, an optimizer per objective and the averaged weights.

    ``build`` makes the same family anew; only a sharded training needs it, to show and to save whole weights.
    """

    def __init__(
        self,
        family: Family,
        config: TrainingConfig,
        *,
        gang: Gang | None = None,
        device: torch.device | str = "cpu",
        checkpoints: Checkpoints | None = None,
        build: Callable[[], Family] | None = None,
    ) -> None:
        self.family = family
        self.config = config
        self.gang = gang or Gang()
        self.device = torch.device(device)
        self.checkpoints = checkpoints
        self.step = 0
        self._ahead = Prefetch(self._batches, is_threaded=False)
        self._flops = 0
        self._rows_per_micro_batch = self._split_batch()
        fast = fast_dtype(self.device) if config.precision == "auto" else None
        self._uses_bf16 = config.precision == "bf16" or fast == torch.bfloat16
        self._is_sharded = config.sharding == "full" and self.gang.world_size > 1
        self._build = build
        if self._is_sharded and build is None:
            raise ValueError("a sharded training needs build, which makes the family anew with whole weights")
        for module in family.modules().values():
            self._prepare(module)
        self.movers = [_Mover(objective, config, self._is_sharded) for objective in family.objectives()]

    def _split_batch(self) -> int:
        config, world_size = self.config, self.gang.world_size
        if not config.divides_over(world_size):
            raise ValueError(
                f"batch_size {config.batch_size} cannot be cut into {world_size} workers x "
                f"{config.gradient_accumulation} micro-batches; choose a multiple of "
                f"{world_size * config.gradient_accumulation}"
            )
        return config.batch_size // (world_size * config.gradient_accumulation)

    def _prepare(self, module: torch.nn.Module) -> None:
        module.to(self.device)
        if self.device.type == "cuda":
            module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  (a stub knows no format)
        if self.config.gradient_checkpointing:
            _checkpoint_activations(module)
        if self._is_sharded:
            sharding.shard(module, self.device.type, self.gang.world_size)
        if self.config.compile:
            compile_in_place(module, self.device)

    def run(self) -> Iterator[TrainStep]:
        """Train from the checkpoint (if there is one) to ``num_steps``; one :class:`TrainStep` after each step."""
        config = self.config
        torch.set_num_threads(config.num_threads)
        self._resume()
        if self.step < config.num_steps:
            self._flops = self._count_flops()
        started, first = time.perf_counter(), self.step
        with Prefetch(self._batches, is_threaded=self.device.type == "cuda") as self._ahead:
            while self.step < config.num_steps:
                number = self.step + 1
                is_logged = number % config.log_every == 0 or number in (1, config.num_steps)
                scalars = self._step(self._ahead.of(self.step), is_logged)
                self.step = number
                if number == first + 1 and config.compile:
                    started, first = time.perf_counter(), number  # the first step compiled
                seconds = (time.perf_counter() - started) / max(1, number - first)
                utilisation = self._flops / seconds / self._peak_flops() if is_logged and number > first else 0.0
                rate = config.batch_size / seconds if number > first else 0.0
                yield TrainStep(number, config.num_steps, self.movers[0].learning_rate, rate, utilisation, scalars)
                if self.is_checkpoint(number):
                    self._save()  # once the caller has done what belongs to the step: a resumed run does not come by

    def is_checkpoint(self, step: int) -> bool:
        """Whether a checkpoint is saved after this step (and none at the end, where the model itself is kept)."""
        every = self.config.checkpoint_every
        return bool(every) and step % every == 0 and step < self.config.num_steps

    def _count_flops(self) -> int:
        """Operations of one step of this worker in matrix products and convolutions, forward and backward.

        Counted on a step of its own whose gradients are thrown away, because counting changes the last bits.
        """
        first = self._batches(self.step)[0]
        with eagerly(self.config.compile), FlopCounterMode(display=False) as counter:
            for mover in self.movers:
                self._loss_of(mover, first).value.backward()
                mover.optimizer.zero_grad(set_to_none=True)
        return counter.get_total_flops() * self.config.gradient_accumulation

    def _peak_flops(self) -> float:
        dtype = torch.bfloat16 if self._uses_bf16 else torch.float32
        return peak_flops(self.device.type, dtype, self.config.num_threads)

    @contextmanager
    def averaged_weights(self) -> Iterator[Family]:
        """Within the block a family holds the EMA weights (where there are any), whole and in eval mode.

        All workers of a sharded training enter together; only rank 0's family is then of use.
        """
        self._ahead.settle()  # tokenizers, which batches and previews share, do not bear two threads
        for mover in self.movers:
            mover.swap_in_average()
        try:
            with torch.no_grad(), eagerly(self.config.compile):
                if self._is_sharded:
                    yield self._whole_family()
                else:
                    with _evaluating(self.family):
                        yield self.family
        finally:
            for mover in self.movers:
                mover.swap_out_average()

    def _whole_family(self) -> Family:
        states = {name: sharding.whole(module.state_dict()) for name, module in self.family.modules().items()}
        if self.gang.rank != 0 or self._build is None:
            return self.family
        family = self._build()
        for name, module in family.modules().items():
            module.to(self.device).load_state_dict(states[name])
            module.eval()
        return family

    def _batches(self, step: int) -> list["_MicroBatch"]:
        """A worker's share of a step, for every objective the same."""
        config, gang = self.config, self.gang
        rows = rows_at(step, batch_size=config.batch_size, num_rows=self.family.num_rows, seed=config.seed)
        per_worker = config.batch_size // gang.world_size
        mine = rows[gang.rank * per_worker : (gang.rank + 1) * per_worker]
        size = self._rows_per_micro_batch
        return [self._batch(step, mine[first : first + size]) for first in range(0, len(mine), size)]

    def _batch(self, step: int, rows: np.ndarray) -> "_MicroBatch":
        rng = SeededRandom(self.config.seed, step, rows, self.device)
        values = self.family.batch(rows, rng)
        return _MicroBatch(rows, rng, {name: _on(value, self.device) for name, value in values.items()})

    def _loss_of(self, mover: "_Mover", batch: "_MicroBatch") -> Loss:
        """One objective's loss of one micro-batch.

        Dropout draws from the process's generator, which therefore starts anew for each of them.
        """
        torch.manual_seed(seed_of(self.config.seed, batch.rng.step, int(batch.rows[0]), mover.objective.name))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._uses_bf16):
            return mover.objective.loss(batch.values, batch.rng)

    def _step(self, batches: "list[_MicroBatch]", is_logged: bool) -> dict[str, float]:
        config, gang = self.config, self.gang
        collected: dict[str, torch.Tensor] = {}
        for mover in self.movers:
            for batch in batches:
                loss = self._loss_of(mover, batch)
                (loss.value / config.gradient_accumulation).backward()
                if is_logged:
                    _accumulate(collected, mover.objective.name, loss.value, loss.scalars, config)
            norm = mover.update(gang)
            if is_logged:
                collected[f"{mover.objective.name}/grad_norm"] = norm
                self._check_finite(mover.objective, norm, batches[0].rows)
            mover.objective.after_step(self.step)
        return {name: float(value) for name, value in _averaged(collected, gang).items()}

    def _check_finite(self, objective: Objective, norm: torch.Tensor, rows: Any) -> None:
        if not bool(torch.isfinite(norm)):
            raise NonFiniteLoss(
                f"objective {objective.name!r} has a gradient of norm {float(norm)} at step {self.step} on rows "
                f"{rows[:8].tolist()}...; lower the learning rate or use precision fp32"
            )

    def _save(self) -> None:
        if self.checkpoints is None or (self.gang.rank != 0 and not self._is_sharded):
            return
        state = {
            "step": self.step,
            "modules": {name: module.state_dict() for name, module in self.family.modules().items()},
            "movers": [mover.state_dict() for mover in self.movers],
        }
        if self._is_sharded:
            state = sharding.whole(state)
        if self.gang.rank == 0:
            self.checkpoints.save(self.step, state)

    def _resume(self) -> None:
        state = self.checkpoints.load() if self.checkpoints else None
        if state is None:
            return
        for name, module in self.family.modules().items():
            own = module.state_dict()
            saved = {key: sharding.cut_like(own[key], value) for key, value in state["modules"][name].items()}
            module.load_state_dict(saved)
        for mover, saved in zip(self.movers, state["movers"], strict=True):
            mover.load_state_dict(saved)
        self.step = state["step"]


@dataclass(frozen=True, slots=True)
class _MicroBatch:
    """Rows of one forward pass, their randomness and their tensors on the device."""

    rows: np.ndarray
    rng: SeededRandom
    values: Mapping[str, Any]


class _Mover:
    """An objective with what moves its parameters: AdamW, learning-rate schedule, clipping, EMA."""

    def __init__(self, objective: Objective, config: TrainingConfig, is_sharded: bool) -> None:
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
        use_foreach = not is_sharded  # torch cannot copy a list of cut tensors at once
        self.ema = EMAModel(self.parameters, decay=config.ema_decay, foreach=use_foreach) if config.ema_decay else None

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self.lr_scheduler.get_last_lr()[0])

    def update(self, gang: Gang) -> torch.Tensor:
        """Average gradients over the gang, clip, step; the gradients' norm before clipping."""
        if gang.world_size > 1:
            average_gradients(sharding.uncut(self.parameters), gang.world_size)
        norm = sharding.clip_gradients(self.parameters, self.config.max_grad_norm)
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
        saved = state["optimizer"]["state"]
        cut = {
            number: {name: sharding.cut_like(parameter, value) for name, value in saved[number].items()}
            for number, parameter in enumerate(self.parameters)
            if number in saved
        }
        self.optimizer.load_state_dict({**state["optimizer"], "state": cut})
        self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        if self.ema:
            averages = zip(self.parameters, state["ema"]["shadow_params"], strict=True)
            shadow = [sharding.cut_like(parameter, average) for parameter, average in averages]
            self.ema.load_state_dict({**state["ema"], "shadow_params": shadow})


def summed(usage: Usage, gang: Gang, device: torch.device) -> Usage:
    """What all workers of a gang took together; all of them must ask for it together."""
    if gang.world_size == 1:
        return usage
    seconds = torch.tensor([usage.cpu_seconds, usage.gpu_seconds], dtype=torch.float64, device=device)
    peak = torch.tensor(usage.peak_memory_gib, dtype=torch.float64, device=device)
    dist.all_reduce(seconds)
    dist.all_reduce(peak, dist.ReduceOp.MAX)
    return Usage(*seconds.tolist(), peak_memory_gib=float(peak))


def average_gradients(parameters: Sequence[torch.Tensor], world_size: int) -> None:
    """Replace each gradient by its mean over the gang, in buckets whose exchange overlaps with their packing."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    buckets = list(_take_tensors(gradients, _BUCKET_BYTES))
    flat = [_flatten_dense_tensors(bucket) for bucket in buckets]
    exchanges = [dist.all_reduce(each, async_op=True) for each in flat]
    for bucket, each, exchange in zip(buckets, flat, exchanges, strict=True):
        if exchange is not None:
            exchange.wait()
        for gradient, mean in zip(bucket, _unflatten_dense_tensors(each.div_(world_size), bucket), strict=True):
            gradient.copy_(mean)


@contextmanager
def _evaluating(family: Family) -> Iterator[None]:
    modules = family.modules().values()
    was_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, training in zip(modules, was_training, strict=True):
            module.train(training)


def _checkpoint_activations(module: torch.nn.Module) -> None:
    for name in ("activation_checkpointing_enable", "enable_gradient_checkpointing"):  # transformers, diffusers
        if getattr(module, "supports_gradient_checkpointing", True) and hasattr(module, name):
            getattr(module, name)()
            return


def _on(value: Any, device: torch.device) -> Any:
    return moved(value, device) if isinstance(value, torch.Tensor) else value


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
