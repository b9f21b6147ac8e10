"""Initial weights with which a stock AutoencoderKL is average pooling: it already gives a picture back, only coarser.

Random weights spend most of a short training on the way to copying colours: normalisation divides the brightness of a
picture out at the end of encoder and decoder. So eight channels of every layer start as a highway. Six carry a
picture's colours and their negatives, two carry plus and minus a constant:

- residual branches start at zero, so that blocks pass the highway on (as in Goyal et al. 2017, section 5.1);
- the constants dominate the first normalisation group, which thereby divides every picture by nearly the same number;
- silu(x) - silu(-x) = x, so the last convolution reads a colour linearly from the channel and its negative.

All other channels keep their random weights and learn what pooling loses.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D

HIGHWAY = 8  # three colours, their negatives, plus and minus CONSTANT
CONSTANT = 4.0
_CENTRE = (slice(1, 2), slice(1, 2))  # of a 3x3 kernel
_PATCH = (slice(0, 2), slice(0, 2))  # the four pixels that a strided convolution of diffusers pools
_ONLY = (slice(0, 1), slice(0, 1))  # of a 1x1 kernel

# Brightness and two differences of colour, orthonormal, each scaled to a deviation near 1 in usual pictures.
_COLOURS = (
    torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]]) / torch.tensor([[3.0], [2.0], [6.0]]).sqrt()
)
_SCALES = torch.tensor([1.0, 2.0, 3.0])


@torch.no_grad()
def start_as_average_pooling(vae: AutoencoderKL) -> None:
    """Set the initial weights of an AutoencoderKL of RGB pictures; each norm's first group needs ``HIGHWAY`` channels.

    The first three latent channels become brightness and two colour differences, averaged over a latent's pixels.
    """
    encoder: Any = vae.encoder  # diffusers declares its blocks as plain modules
    decoder: Any = vae.decoder
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            _silence(module.conv2)
            if module.conv_shortcut is not None:
                _pass_on(module.conv_shortcut, _ONLY)
    for block in encoder.down_blocks:
        for sampler in block.downsamplers or ():
            _pass_on(sampler.conv, _PATCH)
    for block in decoder.up_blocks:
        for sampler in block.upsamplers or ():
            _pass_on(sampler.conv, _CENTRE)
    _enter(encoder.conv_in, _COLOURS * _SCALES[:, None])
    _leave(encoder.conv_out, encoder.conv_norm_out, torch.eye(3))
    for beside in (vae.quant_conv, vae.post_quant_conv):
        _pass_all(beside)
    _enter(decoder.conv_in, torch.eye(3))
    _leave(decoder.conv_out, decoder.conv_norm_out, _COLOURS.T / _SCALES)


def _enter(conv: Any, colours: torch.Tensor) -> None:
    """Let a 3x3 convolution lead ``colours`` @ its first three channels, and the constants, on to the highway."""
    conv.weight[:HIGHWAY] = 0.0
    conv.weight[:3, :3, 1, 1] = colours
    conv.weight[3:6, :3, 1, 1] = -colours
    conv.bias[:HIGHWAY] = torch.tensor([0.0] * 6 + [CONSTANT, -CONSTANT])


def _pass_on(conv: Any, taps: tuple[slice, slice]) -> None:
    """Let a convolution average each highway channel over ``taps`` of its kernel and mix nothing into it."""
    conv.weight[:HIGHWAY] = 0.0
    conv.bias[:HIGHWAY] = 0.0
    for channel in range(HIGHWAY):
        kernel = conv.weight[channel, channel][taps]
        kernel.fill_(1.0 / kernel.numel())


def _pass_all(conv: Any) -> None:
    """Let a 1x1 convolution with as many channels in as out change nothing."""
    conv.weight[:, :, 0, 0] = torch.eye(conv.out_channels)
    conv.bias.zero_()


def _silence(conv: Any) -> None:
    conv.weight.zero_()
    conv.bias.zero_()


def _leave(conv: Any, norm: Any, colours: torch.Tensor) -> None:
    """Let a 3x3 convolution after ``norm`` and SiLU write ``colours`` @ the highway's into its first three channels."""
    group = norm.num_channels // norm.num_groups
    divisor = ((2 * CONSTANT**2 + 6) / group) ** 0.5  # what the norm divides by where colours have deviation 1
    conv.weight[:3] = 0.0
    conv.bias[:3] = 0.0
    conv.weight[:3, :3, 1, 1] = colours * divisor
    conv.weight[:3, 3:6, 1, 1] = -colours * divisor
