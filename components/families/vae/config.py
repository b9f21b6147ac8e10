"""What a VAE is made of and how it is regularised. No knob of the training loop belongs here, and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from components.contracts import Frozen, Rows

if TYPE_CHECKING:
    from .objective import Vae


class VaeConfig(Frozen):
    """A stock AutoencoderKL; each level after the first halves height and width, so two levels make an f2 VAE."""

    family: Literal["vae"] = "vae"
    pretrained: str | None = Field(
        default=None,
        description="Folder or hub id of an AutoencoderKL to start from; its own architecture and scaling stay.",
    )
    block_out_channels: tuple[int, ...] = Field(
        default=(16, 32), description="Width of each level, the first at full size."
    )
    layers_per_block: int = Field(
        default=1, description="Residual blocks per level of the encoder; the decoder has one more."
    )
    latent_channels: int = Field(
        default=4, description="Channels of the latents; ConsistencyDecoderVAE accepts 4 alone.", gt=0
    )
    norm_num_groups: int = Field(default=2, description="Groups of each GroupNorm; must divide every width.", gt=0)
    starts_as_average: bool = Field(
        default=True,
        description="Start as average pooling of colours, which saves most of the steps; each group of the norms then "
        "needs 8 channels.",
    )
    has_attention: bool = Field(default=False, description="Self-attention in the middle of encoder and decoder.")
    latent_noise: float = Field(
        default=0.05, description="Standard deviation of the noise that the decoder learns to bear; 0 adds none.", ge=0
    )
    l1_weight: float = Field(default=0.5, description="Weight of the absolute error beside the squared error.", ge=0)
    moment_weight: float = Field(default=0.03, description="Pulls each latent channel to mean 0 and deviation 1.", ge=0)
    covariance_weight: float = Field(default=0.003, description="Keeps latent channels uncorrelated.", ge=0)

    @model_validator(mode="after")
    def _norms_fit(self) -> VaeConfig:
        narrowest = min(self.block_out_channels)
        if any(width % self.norm_num_groups for width in self.block_out_channels):
            raise ValueError(
                f"norm_num_groups {self.norm_num_groups} must divide every width {self.block_out_channels}"
            )
        if self.starts_as_average and narrowest < 8 * self.norm_num_groups:
            raise ValueError(
                f"starts_as_average needs 8 channels per group; {narrowest} channels in {self.norm_num_groups} groups "
                f"have {narrowest // self.norm_num_groups}; widen block_out_channels or lower norm_num_groups"
            )
        return self

    def build(self, train: Rows, evaluation: Rows, parents: Mapping[str, Path]) -> Vae:
        """The family; it has no parents and reads pixels alone.

        Raises ValueError where a row set is empty or the picture's sides cannot be halved often enough.
        """
        from .objective import Vae

        return Vae(self, train, evaluation)
