"""How the student is distilled. Its architecture is its teacher's; no torch, and no knob of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from components.contracts import Frozen, Rows

if TYPE_CHECKING:
    from .objective import ConsistencyDecoder


class ConsistencyDecoderConfig(Frozen):
    """Consistency distillation of a diffusion decoder, for sampling at timesteps 1008 and 512."""

    family: Literal["consistency_decoder"] = "consistency_decoder"
    pretrained: str | None = Field(
        default=None,
        description="Folder or hub id of a ConsistencyDecoderVAE of the teacher's architecture to start from; without "
        "one the student starts as its teacher.",
    )
    data_fraction: float = Field(
        default=0.0,
        description="Share of rows that learn from the picture itself, at the two timesteps of sampling, instead of "
        "from the teacher's step; lets the student surpass a teacher of short training.",
        ge=0,
        le=1,
    )
    first_step_fraction: float = Field(
        default=0.2,
        description="Share of those rows at timestep 1008; the others are at 512, which ends the picture.",
        ge=0,
        le=1,
    )
    min_scales: int = Field(default=8, description="Timesteps on the grid at the start.", ge=2)
    max_scales: int = Field(default=32, description="Timesteps on the grid at the end.", ge=2, le=50)
    num_annealing_steps: int = Field(
        default=200, description="Training steps over which the grid grows, by doubling at even intervals.", ge=0
    )
    solver: Literal["ddim", "heun"] = Field(
        default="heun", description="The teacher's step between neighbours on the grid."
    )
    target_decay: float = Field(
        default=0.95,
        description="Decay of the target network's moving average; 0 makes it the student itself.",
        ge=0,
        lt=1,
    )
    huber_scale: float = Field(
        default=0.00054, description="Pseudo-Huber's c over the square root of the number of values in a picture.", ge=0
    )
    latent_noise: float = Field(
        default=0.0,
        description="Standard deviation of noise on the latents, to bear generated ones; 0 adds none.",
        ge=0,
    )
    num_teacher_steps: int = Field(default=25, description="Sampling steps of the teacher's sample pictures.", gt=0)

    @model_validator(mode="after")
    def _scales_grow(self) -> ConsistencyDecoderConfig:
        if self.max_scales < self.min_scales:
            raise ValueError(f"max_scales {self.max_scales} is below min_scales {self.min_scales}")
        return self

    def build(self, train: Rows, evaluation: Rows, parents: Mapping[str, Path]) -> ConsistencyDecoder:
        """The family; its parents are ``vae`` and ``diffusion_decoder``, and its rows need pixels and latents.

        Raises ValueError where rows have no latents or the parents do not belong together.
        """
        from .objective import ConsistencyDecoder

        return ConsistencyDecoder(self, train, evaluation, parents)
