"""What the training loop gains over a loop written as diffusers' example does it, and what is left to gain.

Same U-Net, batch, pictures, captions and optimizer; a frozen text encoder, as in the example. Ours has logging, EMA,
checkpoints and per-row randomness switched on, and reads cached latents and text embeddings; the reference has none of
them. The reference takes the faster of fp32 and bf16 on this machine. ``stage_profiles`` tells where the time of a step
goes, for every trained asset.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from components.data.lake import Lake
from components.execution.local_executor import LocalExecutor
from components.families.latent_diffusion.model import new_unet
from components.pipeline.graph import ORDER, make
from components.pipeline.train import STAGES, family_rows, new_trainer
from components.pipeline.workspace import Workspace
from components.recipes import load_recipe
from components.training.checkpoint import Checkpoints
from components.training.loop import Trainer

from .measurement import Ratio, open_bench_workspace

NUM_ROUNDS = 5
NUM_STEPS = 12  # of one round, after as many that only warm up
GROWTH = (1, 2, 4)


def training_over_plain_loops(folder: Path) -> list[Ratio]:
    """Pictures a second over the plain loop, over the same with cached latents, and the floor's share of our step."""
    ws = _prepared(folder)
    batch_size = ws.recipe.latent_diffusion.training.batch_size
    compiling = ws.with_recipe(ws.recipe.with_overrides({"latent_diffusion.training.compile": "true"}))
    with tempfile.TemporaryDirectory() as temporary:
        ours = new_trainer(ws, "latent_diffusion", checkpoints=Checkpoints(Lake(temporary), "ours"))
        compiled = new_trainer(compiling, "latent_diffusion", checkpoints=Checkpoints(Lake(temporary), "compiled"))
        plain = PlainLoop.of(ws)
        plain.use_bf16 = _is_faster_in_bf16(plain)
        ways: dict[str, Iterator[Any]] = {
            "ours": ours.run(),
            "compiled": compiled.run(),
            "encoding": plain.steps(is_cached=False),
            "cached": plain.steps(is_cached=True),
            "floor": _floor(ours),
            "compiled floor": _floor(compiled),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for steps in ways.values():
            _seconds(steps)
        for _ in range(NUM_ROUNDS):
            for name, steps in ways.items():
                seconds[name].append(_seconds(steps))
    rates = {name: [batch_size / one for one in values] for name, values in seconds.items()}
    settings = (
        f"U-Net of tiny, batch {batch_size}, 1 thread, {NUM_STEPS} steps a round, ours with logging, EMA, checkpoints; "
        f"reference in {'bf16' if plain.use_bf16 else 'fp32'}"
    )
    compared = [
        Ratio.of(f"{what} / {name}", rates[ours], rates[reference], "pictures/s", aim, settings)
        for ours, what in (("ours", "training"), ("compiled", "compiled training"))
        for reference, name, aim in (
            ("encoding", "loop encoding at every step", ">= 2.0"),
            ("cached", "loop with cached latents", ">= 1.0"),
        )
    ]
    floors = [
        Ratio.of(f"networks and optimizer alone / {what}", seconds[floor], seconds[ours], "s/step", ">= 0.9", settings)
        for ours, floor, what in (("ours", "floor", "our step"), ("compiled", "compiled floor", "our compiled step"))
    ]
    return compared + floors


def stage_profiles(folder: Path) -> Iterator[Ratio]:
    """For every trained asset of the recipe tiny: the share of a step in which the networks wait for their batch.

    Rows, and networks that a stage takes over from its parent, are those of the recipe smoke.
    """
    ws = _prepared(folder)
    make(ws, "diffusion_decoder")
    ws = ws.with_recipe(load_recipe("tiny").model_copy(update={"name": ws.recipe.name}))
    for asset in STAGES:
        trainer = new_trainer(ws, asset)
        clock = Stopwatch()
        trainer._batches = clock.around("data", trainer._batches)
        trainer._loss_of = clock.around("forward", trainer._loss_of)
        for mover in trainer.movers:
            mover.update = clock.around("update", mover.update)
        steps = trainer.run()
        list(islice(steps, NUM_STEPS))
        shares: list[dict[str, float]] = []
        for _ in range(NUM_ROUNDS):
            clock.seconds.clear()
            whole = _seconds(steps)
            shares.append({name: value / NUM_STEPS for name, value in clock.seconds.items()} | {"step": whole})
        middle = {name: median(each[name] for each in shares) for name in shares[0]}
        rest = middle["step"] - sum(middle[name] for name in ("data", "forward", "update"))
        utilisation = trainer._flops / middle["step"] / trainer._peak_flops()
        yield Ratio.of(
            f"{asset}: batch / step",
            [each["data"] for each in shares],
            [each["step"] for each in shares],
            "s/step",
            "<= 0.1",
            f"forward {middle['forward'] / middle['step']:.0%}, backward and the rest {rest / middle['step']:.0%}, "
            f"clipping, AdamW, EMA {middle['update'] / middle['step']:.0%}; {utilisation:.0%} of a matrix product; "
            f"batch {trainer.config.batch_size}, 1 thread",
        )


class Stopwatch:
    """Adds up the seconds of functions by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its seconds counted."""

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.seconds[name] += time.perf_counter() - started

        return timed


def cost_growth(folder: Path) -> list[Ratio]:
    """Seconds of ingest and encoding for 2 and 4 times the rows, and of training for 2 and 4 times the steps."""
    rows: dict[int, list[float]] = {factor: [] for factor in GROWTH}
    steps: dict[int, list[float]] = {factor: [] for factor in GROWTH}
    ws = _prepared(folder / "steps")
    for number in range(3):
        for factor in GROWTH:
            limits = {"data.max_shards": str(factor), "data.max_rows_per_shard": "1024"}
            fresh = open_bench_workspace(folder / f"rows-{factor}-{number}", LocalExecutor())
            fresh = fresh.with_recipe(fresh.recipe.with_overrides(limits | {"vae.training.num_steps": "1"}))
            started = time.perf_counter()
            make(fresh, "raw_pairs")
            make(fresh, "image_set")
            rest = time.perf_counter() - started
            make(fresh, "vae")
            started = time.perf_counter()
            make(fresh, "latents")
            rows[factor].append(rest + time.perf_counter() - started)
            trainer = new_trainer(ws, "latent_diffusion")
            run = trainer.run()
            next(run)
            started = time.perf_counter()
            list(islice(run, 15 * factor))
            steps[factor].append(time.perf_counter() - started)
    return [
        Ratio.of(f"seconds, {factor} x {what} / 1 x", values[factor], values[1], "seconds", f"near {factor}", settings)
        for what, values, settings in (
            ("rows", rows, "ingest, manifest and encoding of 1,024 rows"),
            ("steps", steps, "15 steps of latent diffusion"),
        )
        for factor in GROWTH[1:]
    ]


def _prepared(folder: Path) -> Workspace:
    """Rows, latents and a text encoder of the recipe smoke, with the text-to-image model of tiny."""
    ws = open_bench_workspace(folder, LocalExecutor())
    section = load_recipe("tiny", {"latent_diffusion.model.trains_text_encoder": "false"}).latent_diffusion
    ws = ws.with_recipe(ws.recipe.model_copy(update={"latent_diffusion": section}))
    for asset in ORDER[: ORDER.index("latent_diffusion")]:
        make(ws, asset)
    return ws


def _seconds(steps: Iterator[Any]) -> float:
    """Seconds of one step, over a round."""
    started = time.perf_counter()
    for _ in islice(steps, NUM_STEPS):
        pass
    return (time.perf_counter() - started) / NUM_STEPS


def _is_faster_in_bf16(plain: "PlainLoop") -> bool:
    seconds = {}
    for use_bf16 in (False, True):
        plain.use_bf16 = use_bf16
        steps = plain.steps(is_cached=True)
        _seconds(steps)
        seconds[use_bf16] = _seconds(steps)
    return seconds[True] < seconds[False]


def _floor(trainer: Trainer) -> Iterator[None]:
    """Forward, backward and optimizer of our model on one batch that lies ready."""
    family, mover = trainer.family, trainer.movers[0]
    from components.training.randomness import SeededRandom

    rows = np.arange(trainer.config.batch_size)
    rng = SeededRandom(0, 0, rows)
    batch: Any = family.batch(rows, rng)
    objective: Any = mover.objective
    noise, times = torch.randn(batch["latents"].shape), torch.rand(len(rows))
    uses_bf16 = trainer._uses_bf16
    optimizer = torch.optim.AdamW(mover.parameters, lr=1e-9, fused=True)
    while True:
        with torch.autocast("cpu", torch.bfloat16, enabled=uses_bf16):
            loss = objective.velocity_error(batch, noise, times)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield


@dataclass(slots=True)
class PlainLoop:
    """The loop of diffusers' ``train_text_to_image`` example, without its command line and its accelerator."""

    pixels: np.ndarray
    captions: list[str]
    latents: torch.Tensor
    vae: Any
    text_encoder: Any
    tokenizer: Any
    unet: Any
    batch_size: int
    use_bf16: bool = False

    @classmethod
    def of(cls, ws: Workspace) -> "PlainLoop":
        """The workspace's rows and models, with a U-Net of its own."""
        rows = family_rows(ws, "latent_diffusion").train
        pipeline: Any = new_trainer(ws, "latent_diffusion").family
        assert rows.latents is not None
        return cls(
            pixels=np.asarray(rows.pixels),
            captions=[text or "" for text in rows.texts["dsc"]],
            latents=torch.from_numpy(np.asarray(rows.latents, np.float32)),
            vae=pipeline.pipeline.vae,
            text_encoder=pipeline.text_encoder,
            tokenizer=pipeline.tokenizer,
            unet=new_unet(
                ws.recipe.latent_diffusion.model, rows.latents.shape[1:], pipeline.text_encoder.config.d_model
            ),
            batch_size=ws.recipe.latent_diffusion.training.batch_size,
        )

    def steps(self, *, is_cached: bool) -> Iterator[None]:
        """One optimizer step after the other."""
        torch.set_num_threads(1)
        scheduler = DDPMScheduler(num_train_timesteps=1000)
        optimizer = torch.optim.AdamW(self.unet.parameters(), lr=1e-4)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        loader = torch.utils.data.DataLoader(
            _Examples(self, is_cached), batch_size=self.batch_size, shuffle=True, drop_last=True
        )
        self.unet.train()
        while True:
            for batch in loader:
                with torch.autocast("cpu", torch.bfloat16, enabled=self.use_bf16):
                    if is_cached:
                        latents = batch["latents"]
                    else:
                        with torch.no_grad():
                            latents = self.vae.encode(batch["pixel_values"]).latent_dist.sample()
                        latents = latents * self.vae.config.scaling_factor
                    noise = torch.randn_like(latents)
                    timesteps = torch.randint(0, 1000, (len(latents),)).long()
                    noisy_latents = scheduler.add_noise(latents, noise, timesteps)
                    with torch.no_grad():
                        hidden = self.text_encoder(batch["input_ids"], return_dict=False)[0]
                    predicted = self.unet(noisy_latents, timesteps, hidden, return_dict=False)[0]
                    loss = torch.nn.functional.mse_loss(predicted.float(), noise.float(), reduction="mean")
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                yield


class _Examples(torch.utils.data.Dataset):
    """Pixels or latents with token ids, made ready when they are asked for."""

    def __init__(self, loop: PlainLoop, is_cached: bool) -> None:
        self.loop, self.is_cached = loop, is_cached

    def __len__(self) -> int:
        return len(self.loop.captions)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        loop = self.loop
        tokens = loop.tokenizer(
            loop.captions[row], max_length=loop.tokenizer.model_max_length, padding="max_length", truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        if self.is_cached:
            return {"latents": loop.latents[row], "input_ids": tokens.input_ids[0]}
        pixels = torch.from_numpy(loop.pixels[row].copy()).permute(2, 0, 1).float() / 127.5 - 1
        return {"pixel_values": pixels, "input_ids": tokens.input_ids[0]}
