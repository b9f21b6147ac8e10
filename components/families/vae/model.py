"""The stock AutoencoderKL: built, loaded, and brought to unit variance. No loss and no uint8 belong here."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from .config import VaeConfig
from .pooling import start_as_average_pooling


def new_vae(config: VaeConfig, resolution: int) -> AutoencoderKL:
    """An untrained AutoencoderKL whose latents need no scaling, or ``config.pretrained`` as it is.

    Convolutions are laid out channels-last, a third faster on a CPU at these widths.
    """
    if config.pretrained:
        vae = load_autoencoder(config.pretrained)
    else:
        num_levels = len(config.block_out_channels)
        settings: dict[str, Any] = {
            "down_block_types": ("DownEncoderBlock2D",) * num_levels,
            "up_block_types": ("UpDecoderBlock2D",) * num_levels,
            "block_out_channels": config.block_out_channels,
            "layers_per_block": config.layers_per_block,
            "latent_channels": config.latent_channels,
            "norm_num_groups": config.norm_num_groups,
            "sample_size": resolution,
            "scaling_factor": 1.0,
            "force_upcast": False,
            "mid_block_add_attention": config.has_attention,
        }
        vae = AutoencoderKL(**settings)
        if config.starts_as_average:
            start_as_average_pooling(vae)
    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    if resolution % factor:
        raise ValueError(
            f"pictures of {resolution} px cannot be halved into latents {factor} times smaller; "
            f"choose a resolution that {factor} divides, or fewer block_out_channels"
        )
    return arranged(vae, torch.channels_last)


def load_autoencoder(folder: str | Path) -> AutoencoderKL:
    """A stock AutoencoderKL from a folder or the hub, in float32, that does not remember where it was loaded from."""
    vae = AutoencoderKL.from_pretrained(folder)
    vae.float()
    vae.register_to_config(_name_or_path="")
    return vae


def arranged(vae: AutoencoderKL, memory_format: torch.memory_format) -> AutoencoderKL:
    """The same autoencoder with its weights laid out in memory like this."""
    vae.apply(lambda module: _arrange(module, memory_format))
    return vae


def _arrange(module: torch.nn.Module, memory_format: torch.memory_format) -> None:
    for parameter in module.parameters(recurse=False):
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)


def latents_of(vae: AutoencoderKL, pixel_values: torch.Tensor) -> torch.Tensor:
    """Posterior mean as the U-Net sees it, shifted and scaled: (B, C, h, w) of pictures (B, 3, H, W) in [-1, 1]."""
    shift = vae.config["shift_factor"] or 0.0
    return (vae.encode(pixel_values, return_dict=False)[0].mean - shift) * vae.config["scaling_factor"]


def pixel_values_of(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, H, W), about [-1, 1], of latents as the U-Net sees them, (B, C, h, w)."""
    shift = vae.config["shift_factor"] or 0.0
    return vae.decode(latents / vae.config["scaling_factor"] + shift, return_dict=False)[0]


def standardise(vae: AutoencoderKL, mean: torch.Tensor, std: torch.Tensor, noise: float) -> AutoencoderKL:
    """A copy that draws the same pictures from latents of mean 0 and deviation 1 in every channel.

    ``mean``, ``std``: of the latents, (C,). A single ``scaling_factor`` could not do this per channel, and
    StableDiffusionPipeline ignores ``shift_factor``; so both go into the 1x1 convolutions beside the latents. The
    posterior's deviation becomes ``noise`` (of the latents as they were), which the decoder was trained to bear: the
    training never moved it.
    """
    vae = arranged(copy.deepcopy(vae), torch.contiguous_format)
    num_channels = vae.config["latent_channels"]
    if vae.quant_conv is None or vae.post_quant_conv is None:
        raise ValueError("the VAE has no quant_conv to standardise; give its scaling_factor instead")
    encode, decode = vae.quant_conv, vae.post_quant_conv
    if encode.bias is None or decode.bias is None:
        raise ValueError("the VAE's quant_conv has no bias to standardise")
    with torch.no_grad():
        decode.bias += decode.weight[:, :, 0, 0] @ mean  # D(z) = W (z' std + mean) + b
        decode.weight *= std[None, :, None, None]
        encode.bias[:num_channels] = (encode.bias[:num_channels] - mean) / std
        encode.weight[:num_channels] /= std[:, None, None, None]
        encode.bias[num_channels:] = 2 * torch.log(noise / std) if noise else -30.0  # diffusers clamps at -30
        encode.weight[num_channels:] = 0.0
    return vae


def peak_signal_to_noise(error: float) -> float:
    """PSNR in decibels of a mean squared error between pictures in [0, 1]; infinite for none."""
    return -10.0 * math.log10(error) if error else math.inf
