"""The stock pipeline: a new U-Net between a trained text encoder and a trained VAE, or a pretrained one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from transformers import AutoTokenizer, T5EncoderModel

from .config import LatentDiffusionConfig

NUM_TRAIN_TIMESTEPS = 1000  # time 1 of the flow is timestep 1000 of the U-Net


def new_pipeline(
    config: LatentDiffusionConfig, parents: Mapping[str, Path], latent_shape: tuple[int, int, int]
) -> StableDiffusionPipeline:
    """A pipeline for latents (channels, height, width) with an untrained U-Net, or the one of ``config.pretrained``.

    The VAE is always the parent, because the latents are its own.
    """
    vae = AutoencoderKL.from_pretrained(parents["vae"])
    vae.float()
    if config.pretrained:
        pipeline = with_vae(load_pipeline(config.pretrained), vae)
    else:
        text_encoder = T5EncoderModel.from_pretrained(
            parents["text_encoder"], dtype=torch.float32, attn_implementation="eager"
        )
        pipeline = quiet_pipeline(
            {
                "vae": vae,
                "text_encoder": text_encoder,
                "tokenizer": AutoTokenizer.from_pretrained(parents["text_encoder"]),
                "unet": new_unet(config, latent_shape, text_encoder.config.d_model),
                "scheduler": new_scheduler(),
                "safety_checker": None,
                "feature_extractor": None,
            }
        )
    num_channels = pipeline.unet.config["in_channels"]
    if num_channels != latent_shape[0]:
        raise ValueError(
            f"the U-Net of {config.pretrained} takes {num_channels} latent channels, the VAE gives {latent_shape[0]}; "
            "choose the VAE that it was trained with"
        )
    for part in (pipeline.vae, pipeline.unet, pipeline.scheduler):
        part.register_to_config(_name_or_path="")  # where a part was loaded from is no property of the model
    return pipeline


def new_unet(
    config: LatentDiffusionConfig, latent_shape: tuple[int, int, int], cross_attention_dim: int
) -> UNet2DConditionModel:
    """An untrained U-Net. ``scale_shift`` is DALL-E 3's modulated GroupNorm."""
    channels, height, width = latent_shape
    attends = config.has_attention
    settings: dict[str, Any] = {
        "sample_size": height if height == width else (height, width),
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": tuple("CrossAttnDownBlock2D" if level else "DownBlock2D" for level in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if level else "UpBlock2D" for level in reversed(attends)),
        "block_out_channels": config.block_out_channels,
        "layers_per_block": config.layers_per_block,
        "transformer_layers_per_block": config.num_transformer_layers,
        "attention_head_dim": config.num_attention_heads,  # diffusers' name for the number of heads
        "cross_attention_dim": cross_attention_dim,
        "norm_num_groups": config.norm_num_groups,
        "resnet_time_scale_shift": "scale_shift",
    }
    unet = UNet2DConditionModel(**settings)
    silence_residual_branches(unet)
    return unet


@torch.no_grad()
def silence_residual_branches(unet: UNet2DConditionModel) -> None:
    """Let every residual and transformer branch start at zero, which diffusers does not do by itself."""
    for module in unet.modules():
        last: list[torch.nn.Module] = []
        if isinstance(module, ResnetBlock2D):
            last = [module.conv2]
        elif isinstance(module, BasicTransformerBlock):
            block: Any = module
            last = [block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[-1]]
        for parameter in (parameter for layer in last for parameter in layer.parameters()):
            parameter.zero_()


def new_scheduler() -> DPMSolverMultistepScheduler:
    """DPM-Solver++ along the straight paths of a rectified flow, noise at timestep 1000.

    ``steps_offset`` has no effect on them, but StableDiffusionPipeline warns of any other value.
    """
    return DPMSolverMultistepScheduler(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        steps_offset=1,
    )


def load_pipeline(folder: str | Path, device: torch.device | str = "cpu") -> StableDiffusionPipeline:
    """The pipeline of a model folder or hub id in float32, without progress bars and safety checker."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False).to(
        device, torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def with_vae(pipeline: StableDiffusionPipeline, vae: torch.nn.Module) -> StableDiffusionPipeline:
    """The same pipeline with another decoder for its latents: AutoencoderKL or ConsistencyDecoderVAE."""
    return quiet_pipeline({**pipeline.components, "vae": vae})


def quiet_pipeline(parts: Mapping[str, Any]) -> StableDiffusionPipeline:
    """A pipeline of these parts, without progress bars."""
    pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
