"""What the teacher's U-Net is made of and how its loss is weighted. No torch, and no knob of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from components.contracts import Frozen, Rows

if TYPE_CHECKING:
    from .objective import DiffusionDecoder


class DiffusionDecoderConfig(Frozen):
    """A stock ConsistencyDecoderVAE whose U-Net works on pixels at full size and reads upsampled latents."""

    family: Literal["diffusion_decoder"] = "diffusion_decoder"
    pretrained: str | None = Field(
        default=None,
        description="Folder or hub id of a ConsistencyDecoderVAE whose U-Net to start from; its architecture stays.",
    )
    block_out_channels: tuple[int, ...] = Field(
        default=(16, 32), description="Width of each level, the first at full size."
    )
    layers_per_block: int = Field(
        default=1, description="Residual blocks per level on the way down; one more on the way up."
    )
    norm_num_groups: int = Field(
        default=1,
        description="Groups of each GroupNorm; must divide every width. Small groups lose brightness.",
        gt=0,
    )
    starts_as_linear: bool = Field(
        default=True,
        description="Start as the best linear denoiser, which saves most of the steps; norm groups of the first level "
        "then need 14 channels.",
    )
    has_attention: bool = Field(default=False, description="Self-attention in the middle.")
    has_resnet_resampling: bool = Field(
        default=False,
        description="Resample with a residual block, as openai/consistency-decoder does, not one convolution.",
    )
    time_embedding_type: Literal["positional", "learned"] = Field(
        default="positional", description="A learned table of 1,024 timesteps needs long training."
    )
    residual_sigma: float = Field(
        default=0.05,
        description="Deviation of pictures in [-1, 1] that latents leave open; weighs low noise in the loss.",
        gt=0,
    )
    latent_noise: float = Field(
        default=0.0,
        description="Standard deviation of noise on the latents, to bear generated ones; 0 adds none.",
        ge=0,
    )
    num_inference_steps: int = Field(default=25, description="Sampling steps of sample pictures.", gt=0)

    def build(self, train: Rows, evaluation: Rows, parents: Mapping[str, Path]) -> DiffusionDecoder:
        """The family; its parent is ``vae``, and its rows need pixels and latents.

        Raises ValueError where rows have no latents, or latents that the stock class cannot decode.
        """
        from .objective import DiffusionDecoder

        return DiffusionDecoder(self, train, evaluation, parents)
