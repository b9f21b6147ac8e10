"""What training the text-to-image model of a recipe will take, before anything is made.

What belongs here: the shapes that a recipe implies. What does not: counting (``components.training.dry_run``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.recipes.recipe import Recipe

if TYPE_CHECKING:
    from components.training.dry_run import DryRun

T5_WIDTHS = {"small": 512, "base": 768, "large": 1024, "xl": 2048, "xxl": 4096}
FACTOR_OF_HUB_VAE = 8


@dataclass(frozen=True, slots=True)
class Estimate:
    """A dry run, and what it means for the recipe's training on devices of a given speed and price."""

    counts: DryRun
    latent_side: int
    batch_size: int
    num_steps: int
    num_workers: int
    flops_per_second: float
    price_per_hour: float
    is_sharded: bool = False

    def lines(self) -> Iterator[str]:
        """The estimate in words."""
        counts, rows = self.counts, self.batch_size // self.num_workers
        activations = rows * counts.activation_bytes_per_row
        state = counts.state_bytes / (self.num_workers if self.is_sharded else 1)
        hours = counts.hours(self.batch_size, self.num_steps, self.flops_per_second)
        side, speed = self.latent_side, f"{self.flops_per_second / 1e12:,.3g} TFLOP/s"
        yield f"U-Net: {counts.num_parameters / 1e6:,.1f} M parameters on latents of {side} x {side}"
        yield f"a step: batch {self.batch_size:,}, {counts.flops_per_step(self.batch_size) / 1e12:,.3g} TFLOP"
        yield (
            f"memory of a worker with {rows:,} rows at once: {(state + activations) / 2**30:,.1f} GiB "
            f"(weights, gradients, AdamW and EMA {state / 2**30:,.1f}, activations "
            f"{activations / 2**30:,.1f}, which gradient_accumulation cuts)"
        )
        yield (
            f"{self.num_steps:,} steps: {hours:,.3g} device hours at {speed} each, {hours / self.num_workers:,.3g} "
            f"hours on {self.num_workers} workers, {hours * self.price_per_hour:,.0f} at {self.price_per_hour:g} an "
            "hour"
        )


def estimate(recipe: Recipe, *, flops_per_second: float, price_per_hour: float) -> Estimate:
    """The cost of ``latent_diffusion``: its U-Net on meta tensors. Frozen parts and data loading are not counted."""
    import torch

    from components.families.latent_diffusion.model import new_unet
    from components.training.dry_run import dry_run

    section = recipe.latent_diffusion
    vae = recipe.vae.model
    factor = FACTOR_OF_HUB_VAE if vae.pretrained else 2 ** (len(vae.block_out_channels) - 1)
    side, channels = recipe.data.resolution // factor, vae.latent_channels
    width, length = text_width(recipe), recipe.prompt_upsampler.model.max_length

    def inputs(rows: int) -> dict[str, Any]:
        return {
            "sample": torch.empty(rows, channels, side, side),
            "timestep": torch.empty(rows),
            "encoder_hidden_states": torch.empty(rows, length, width),
        }

    return Estimate(
        counts=dry_run(lambda: new_unet(section.model, (channels, side, side), width), inputs),
        latent_side=side,
        batch_size=section.training.batch_size,
        num_steps=section.training.num_steps,
        num_workers=section.training.num_workers,
        flops_per_second=flops_per_second,
        price_per_hour=price_per_hour,
        is_sharded=section.training.sharding == "full" and section.training.num_workers > 1,
    )


def text_width(recipe: Recipe) -> int:
    """Width of the text encoder: the recipe's own, or that of a T5 whose name ends in its size.

    Raises ValueError for a checkpoint whose name does not tell.
    """
    model = recipe.prompt_upsampler.model
    if not model.pretrained:
        return model.d_model
    size = model.pretrained.rstrip("/").rpartition("-")[2].lower()
    if size not in T5_WIDTHS:
        raise ValueError(f"{model.pretrained!r} does not tell its width: it ends in none of {', '.join(T5_WIDTHS)}")
    return T5_WIDTHS[size]
