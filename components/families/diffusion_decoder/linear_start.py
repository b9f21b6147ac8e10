"""Initial weights with which the decoder's U-Net is the best linear denoiser that knows the latents' colours.

What belongs here: those weights. What does not: how they are trained on (``objective``).

Random weights spend most of a short training on copying: colours out of the latents, and noise out of the noisy
picture, which c_skip lets through and the network must subtract. So fourteen channels at full size start as a highway:
the noisy picture u = c_in x_t and a linear guess y of the picture from the latents, each with its negative, and plus
and minus a constant. With w = s^2 / (s^2 + sigma^2), s the guess's error, the best linear denoiser is

    D(x_t, t) = (1 - w) y + w x_t / sqrt(abar_t),

so F = a(t) y - b(t) u with a = (1 - w) / c_out and b = (c_skip - w / sqrt(abar_t)) / (c_out c_in). A stock network can
do that: the constants dominate the normalisation, which thereby divides by nearly the same number; silu(x) - silu(-x)
= x; and the last residual block's time scale is fitted to a and b. All else keeps its random weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.consistency_decoder_vae import ConsistencyDecoderVAE

from components.diffusion.latent_decoder import condition, to_pixel_values
from components.diffusion.scalings import scalings_at
from components.diffusion.schedule import cosine_schedule, timesteps_at

HIGHWAY = 14
_CONSTANT = 8.0  # of the last two channels
_LEVEL = 0.2  # of the picture at the end of the highway, small beside the constants
_NOISY, _GUESS = (0, 3), (6, 9)  # first channels of u and -u, of y and -y
_PAIRS = [(start + i, start + 3 + i) for start in (0, 6) for i in range(3)] + [(12, 13)]  # a channel and its negative
_NUM_TIMES = 600


@torch.no_grad()
def start_as_linear_denoiser(decoder: ConsistencyDecoderVAE, pixels: np.ndarray, latents: np.ndarray) -> None:
    """Set the initial weights of ``decoder.decoder_unet`` from some pictures and their latents.

    ``pixels``: uint8 (N, H, W, 3); ``latents``: (N, 4, h, w). ValueError where the first norm group of the full-size
    level has fewer than ``HIGHWAY`` channels.
    """
    unet: Any = decoder.decoder_unet  # diffusers declares its blocks as plain modules
    width, num_groups = unet.conv_in.out_channels, unet.conv_norm_out.num_groups
    if width // num_groups < HIGHWAY:
        raise ValueError(
            f"starts_as_linear needs {HIGHWAY} channels in each norm group of the first level; it has {width} in "
            f"{num_groups} groups: widen block_out_channels or lower norm_num_groups"
        )
    features = condition(decoder, torch.from_numpy(np.asarray(latents, np.float32)))
    kernel, bias, error = fit_colours(features, to_pixel_values(pixels))
    _enter(unet.conv_in, kernel, bias)
    _pass_gained(unet, *_gains(error))
    _leave(unet.conv_out, width // num_groups)


def fit_colours(features: torch.Tensor, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The 3x3 convolution (3, 4, 3, 3) with bias (3,) that best gives colours of features (N, 4, H, W), and its error.

    The error is a root mean square over ``pixel_values`` (N, 3, H, W).
    """
    patches = torch.nn.functional.unfold(features, 3, padding=1).transpose(1, 2).flatten(0, 1).double()
    patches = torch.cat([patches, patches.new_ones(len(patches), 1)], dim=1)  # (N H W, 37)
    colours = pixel_values.flatten(2).transpose(1, 2).flatten(0, 1).double()
    weights = _ridge(patches, colours, 1e-3)  # (37, 3)
    error = (patches @ weights - colours).square().mean().sqrt()
    return weights[:-1].T.reshape(3, -1, 3, 3).float(), weights[-1].float(), float(error)


def _gains(error: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Timesteps, a(t), -b(t) and how much an error of F counts there, c_out; each (T,)."""
    schedule = cosine_schedule()
    timesteps = timesteps_at(schedule, torch.linspace(0, 1, _NUM_TIMES))
    scalings = scalings_at(schedule, timesteps)
    c_skip, c_out, c_in = (value.flatten().double() for value in (scalings.c_skip, scalings.c_out, scalings.c_in))
    sigma, signal = (value.flatten().double() for value in (schedule.sigma(timesteps), schedule.signal(timesteps)))
    weight = error**2 / (error**2 + sigma**2)
    return timesteps, (1 - weight) / c_out, (weight / signal - c_skip) / (c_out * c_in), c_out


def _enter(conv: Any, kernel: torch.Tensor, bias: torch.Tensor) -> None:
    """Let the first convolution write u, -u, y, -y and the constants."""
    conv.weight[:HIGHWAY] = 0.0
    conv.weight[:3, :3, 1, 1] = torch.eye(3)
    conv.weight[3:6, :3, 1, 1] = -torch.eye(3)
    conv.weight[6:9, 3:] = kernel
    conv.weight[9:12, 3:] = -kernel
    zeros = torch.zeros(6)
    conv.bias[:HIGHWAY] = torch.cat([zeros, bias, -bias, torch.tensor([_CONSTANT, -_CONSTANT])])


def _pass_gained(
    unet: Any, timesteps: torch.Tensor, guess_gain: torch.Tensor, noisy_gain: torch.Tensor, importance: torch.Tensor
) -> None:
    """Let the last residual block multiply y by a(t) and u by -b(t), and pass the constants on as they are."""
    block = unet.up_blocks[-1].resnets[-1]
    hidden = block.conv1.in_channels - unet.conv_in.out_channels  # what the first convolution wrote stands after these
    block.conv_shortcut.weight[:HIGHWAY] = 0.0
    block.conv_shortcut.bias[:HIGHWAY] = 0.0
    for channel in (12, 13):
        block.conv_shortcut.weight[channel, hidden + channel] = 1.0
    inner = _divisor(block.norm1.num_channels // block.norm1.num_groups, hidden // block.norm1.num_groups)
    _pass_pairs(block.conv1, [inner] * len(_PAIRS), hidden)
    outer = _divisor(block.norm2.num_channels // block.norm2.num_groups, 0)
    means = [float(gain.mean()) for gain in (noisy_gain, guess_gain)]
    _pass_pairs(block.conv2, [_LEVEL * outer * mean for mean in means for _ in range(3)] + [0.0])
    # scale_shift blocks compute norm2(h) (1 + scale(t)) + shift(t), both linear in silu(embedding of t)
    embedding = torch.nn.functional.silu(unet.time_embedding(unet.time_proj(timesteps))).double()
    embedding = torch.cat([embedding, embedding.new_ones(len(embedding), 1)], dim=1)
    wanted = torch.stack([noisy_gain / means[0], guess_gain / means[1]], dim=1) - 1
    fitted = _ridge(embedding * importance[:, None], wanted * importance[:, None], 1e-4).float()
    projection, width = block.time_emb_proj, block.norm2.num_channels
    for half in (0, width):  # scales, then shifts
        projection.weight[half : half + HIGHWAY] = 0.0
        projection.bias[half : half + HIGHWAY] = 0.0
    for first, column in ((_NOISY[0], 0), (_GUESS[0], 1)):
        projection.weight[first : first + 6] = fitted[:-1, column]
        projection.bias[first : first + 6] = fitted[-1, column]


def _pass_pairs(conv: Any, gains: list[float], first_input: int = 0) -> None:
    """Let a 3x3 convolution after SiLU write each pair of highway channels, times its gain, and nothing else there."""
    conv.weight[:HIGHWAY] = 0.0
    conv.bias[:HIGHWAY] = 0.0
    for gain, (plus, minus) in zip(gains, _PAIRS, strict=True):
        for ours, other in ((plus, minus), (minus, plus)):
            conv.weight[ours, first_input + ours, 1, 1] = gain
            conv.weight[ours, first_input + other, 1, 1] = -gain


def _leave(conv: Any, group_size: int) -> None:
    """Let the last convolution write the sum of what the highway brings of y and u, and zero variances."""
    conv.weight.zero_()
    conv.bias.zero_()
    gain = (2 * _CONSTANT**2 / group_size) ** 0.5 / _LEVEL
    for plus, minus in _PAIRS[:6]:
        conv.weight[plus % 3, plus, 1, 1] = gain
        conv.weight[plus % 3, minus, 1, 1] = -gain


def _divisor(group_size: int, num_others: int) -> float:
    """What a norm divides by whose group holds the highway, with pictures of deviation 1, and other channels."""
    return ((2 * _CONSTANT**2 + 9 + num_others) / group_size) ** 0.5


def _ridge(inputs: torch.Tensor, outputs: torch.Tensor, strength: float) -> torch.Tensor:
    """The weights of a least-squares fit, (inputs, outputs)."""
    penalty = strength * torch.eye(inputs.shape[1], dtype=inputs.dtype)
    return torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ outputs)
