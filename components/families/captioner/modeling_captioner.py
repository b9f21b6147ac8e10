"""The captioner's network: a small convolutional tower of ours before a stock GPT-2 decoder.

This file is copied into every captioner's folder, so that ``AutoModelForImageTextToText.from_pretrained(folder,
trust_remote_code=True)`` loads it where Atelier is not installed; therefore it imports torch and transformers alone.
What does not belong here: building from a recipe, losses, captions.

Shapes: B pictures, C channels, N = h x w tokens.
"""

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)
from transformers.modeling_outputs import BaseModelOutput


class ConvTowerConfig(PreTrainedConfig):
    """A tower of 3x3 convolutions; ``hidden_size`` is the width of its last stage."""

    model_type = "atelier_conv_tower"

    image_size: int = 32
    num_channels: int = 3
    widths: list[int] | tuple[int, ...] = (32, 64, 128, 128)
    strides: list[int] | tuple[int, ...] = (2, 1, 2, 1)

    @property
    def hidden_size(self) -> int:
        """Channels of a token."""
        return self.widths[-1]


class ConvTower(PreTrainedModel):
    """Pictures (B, 3, image_size, image_size) as tokens (B, N, hidden_size), one for each cell of the last stage."""

    config_class = ConvTowerConfig
    base_model_prefix = "tower"
    _supports_sdpa = True  # it has no attention; the decoder may use any
    main_input_name = "pixel_values"

    def __init__(self, config: ConvTowerConfig) -> None:
        super().__init__(config)
        channels = [config.num_channels, *config.widths]
        self.stages = nn.ModuleList(
            nn.Conv2d(channels[stage], width, 3, stride=stride, padding=1)
            for stage, (width, stride) in enumerate(zip(config.widths, config.strides, strict=True))
        )
        side = config.image_size
        for stride in config.strides:
            side = -(-side // stride)
        self.row_embeddings = nn.Parameter(torch.zeros(side, 1, config.hidden_size))
        self.column_embeddings = nn.Parameter(torch.zeros(1, side, config.hidden_size))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Kaiming's normal weights; positions as large as what the tower sees, so that the decoder finds them early."""
        if isinstance(module, ConvTower):
            nn.init.normal_(module.row_embeddings)
            nn.init.normal_(module.column_embeddings)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()

    def forward(self, pixel_values: torch.Tensor, **kwargs: object) -> BaseModelOutput:
        """Tokens in reading order, with learned positions added."""
        hidden = pixel_values.to(self.dtype).contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            hidden = stage(hidden).relu()
        hidden = hidden.permute(0, 2, 3, 1)  # (B, h, w, C)
        hidden = self.norm(hidden + self.row_embeddings + self.column_embeddings)
        return BaseModelOutput(last_hidden_state=hidden.flatten(1, 2))  # (B, N, C)


class ConvTowerCaptionerConfig(VisionEncoderDecoderConfig):
    """A :class:`ConvTower` as encoder, GPT-2 with cross-attention as decoder."""

    model_type = "vision-encoder-decoder"
    sub_configs_defaults: ClassVar = {"encoder": ConvTowerConfig, "decoder": GPT2Config}


class ConvTowerCaptioner(VisionEncoderDecoderModel):
    """A stock VisionEncoderDecoderModel whose encoder is a :class:`ConvTower`."""

    config_class = ConvTowerCaptionerConfig

    def __init__(self, config: ConvTowerCaptionerConfig) -> None:
        parts: Any = config  # its annotations also allow for what it no longer holds here
        super().__init__(config, encoder=ConvTower(parts.encoder), decoder=GPT2LMHeadModel(parts.decoder))


ConvTowerCaptionerConfig.register_for_auto_class()
ConvTowerCaptioner.register_for_auto_class("AutoModelForImageTextToText")
