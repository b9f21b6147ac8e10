"""What the U-Net is made of, which captions it sees and how its times are drawn. No torch, and no knob of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from components.contracts import Frozen, Rows

if TYPE_CHECKING:
    from .objective import LatentDiffusion


class LatentDiffusionConfig(Frozen):
    """A stock UNet2DConditionModel that reads a T5 encoder, saved as a StableDiffusionPipeline."""

    family: Literal["latent_diffusion"] = "latent_diffusion"
    pretrained: str | None = Field(
        default=None,
        description="Folder or hub id of a StableDiffusionPipeline whose U-Net, text encoder and scheduler to use.",
    )
    block_out_channels: tuple[int, ...] = Field(
        default=(32, 64, 128), description="Width of each level, the first at full size."
    )
    layers_per_block: tuple[int, ...] = Field(
        default=(1, 1, 1), description="Residual blocks of each level on the way down; the way up has one more."
    )
    has_attention: tuple[bool, ...] = Field(
        default=(False, True, True), description="Which levels attend to the text; the middle always does."
    )
    num_attention_heads: int = Field(default=4, description="Heads of every attention layer.", gt=0)
    num_transformer_layers: int = Field(default=1, description="Transformer layers in each attending block.", gt=0)
    norm_num_groups: int = Field(default=8, description="Groups of each GroupNorm; must divide every width.", gt=0)
    trains_text_encoder: bool = Field(
        default=True, description="Train the text encoder on with the U-Net, or keep it frozen."
    )
    caches_text_embeddings: bool = Field(
        default=True,
        description="With a frozen text encoder: encode every caption once, into a memory-mapped file of float16 "
        "(rows x kinds x tokens x width) on the scratch disk.",
    )
    synthetic_kind: Literal["ssc", "dsc", "truth_ssc", "truth_dsc"] = Field(
        default="dsc",
        description="Which synthetic captions are blended in; the truth is for an oracle to compare with.",
    )
    synthetic_fraction: float = Field(
        default=0.95, description="Share of steps that see a synthetic caption.", ge=0, le=1
    )
    caption_dropout: float = Field(
        default=0.1, description="Share of captions left empty, for classifier-free guidance.", ge=0, lt=1
    )
    time_mean: float = Field(default=1.2, description="Mean of the times' logit; above 0 dwells on noisy latents.")
    time_std: float = Field(default=1.0, description="Standard deviation of the times' logit.", gt=0)
    guidance_scale: float = Field(default=3.0, description="Guidance of sample pictures; 1 is none.", ge=1)
    num_inference_steps: int = Field(default=16, description="Sampling steps of sample pictures.", gt=0)

    @model_validator(mode="after")
    def _levels_agree(self) -> LatentDiffusionConfig:
        lengths = {len(self.block_out_channels), len(self.layers_per_block), len(self.has_attention)}
        if len(lengths) > 1:
            raise ValueError(
                "block_out_channels, layers_per_block and has_attention must have one entry per level; they have "
                f"{len(self.block_out_channels)}, {len(self.layers_per_block)} and {len(self.has_attention)}"
            )
        return self

    def build(self, train: Rows, evaluation: Rows, parents: Mapping[str, Path]) -> LatentDiffusion:
        """The family; its parents are ``vae`` and ``text_encoder`` (the latter unused with ``pretrained``).

        Raises ValueError where rows lack latents or the captions that the blend names.
        """
        from .objective import LatentDiffusion

        return LatentDiffusion(self, train, evaluation, parents)
