"""The teacher's stock ConsistencyDecoderVAE: the VAE's encoder beside a new U-Net. No loss belongs here."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.consistency_decoder_vae import ConsistencyDecoderVAE

from components.diffusion.latent_decoder import load_decoder

from .config import DiffusionDecoderConfig

_NUM_LATENT_CHANNELS = 4  # the stock class standardises exactly four


def new_decoder(config: DiffusionDecoderConfig, vae_folder: Path) -> ConsistencyDecoderVAE:
    """A decoder for the latents of the VAE in ``vae_folder``, whose ``encode`` is that VAE's.

    Its U-Net is new, or the one of ``config.pretrained``. ValueError where the stock class cannot decode such latents.
    """
    vae = AutoencoderKL.from_pretrained(vae_folder, torch_dtype=torch.float32)
    _check_latents(vae, vae_folder)
    is_resnet = config.has_resnet_resampling
    num_levels = len(config.block_out_channels)
    decoder_settings = {
        "decoder_add_attention": config.has_attention,
        "decoder_block_out_channels": config.block_out_channels,
        "decoder_down_block_types": ("ResnetDownsampleBlock2D" if is_resnet else "DownBlock2D",) * num_levels,
        "decoder_layers_per_block": config.layers_per_block,
        "decoder_norm_num_groups": config.norm_num_groups,
        "decoder_time_embedding_type": config.time_embedding_type,
        "decoder_up_block_types": ("ResnetUpsampleBlock2D" if is_resnet else "UpBlock2D",) * num_levels,
    }
    pretrained = load_decoder(config.pretrained) if config.pretrained else None
    if pretrained:
        decoder_settings = {name: value for name, value in pretrained.config.items() if name.startswith("decoder_")}
    source = vae.config
    decoder = ConsistencyDecoderVAE(
        scaling_factor=source["scaling_factor"],
        latent_channels=source["latent_channels"],
        sample_size=source["sample_size"],
        encoder_act_fn=source["act_fn"],
        encoder_block_out_channels=source["block_out_channels"],
        encoder_down_block_types=source["down_block_types"],
        encoder_in_channels=source["in_channels"],
        encoder_layers_per_block=source["layers_per_block"],
        encoder_norm_num_groups=source["norm_num_groups"],
        encoder_out_channels=source["latent_channels"],
        **decoder_settings,
    )
    _copy_encoder(vae, decoder)
    if pretrained:
        decoder.decoder_unet.load_state_dict(pretrained.decoder_unet.state_dict())
    else:  # let a new network say nothing: D(x_t) is then c_skip x_t, the best guess that looks at x_t alone
        for parameter in decoder.decoder_unet.conv_out.parameters():
            torch.nn.init.zeros_(parameter)
    return decoder


def _check_latents(vae: AutoencoderKL, folder: Path) -> None:
    if vae.config["latent_channels"] != _NUM_LATENT_CHANNELS:
        raise ValueError(
            f"the VAE in {folder} has {vae.config['latent_channels']} latent channels; ConsistencyDecoderVAE decodes "
            f"{_NUM_LATENT_CHANNELS} alone: train the vae with latent_channels {_NUM_LATENT_CHANNELS}"
        )
    if vae.config["shift_factor"]:
        raise ValueError(
            f"the VAE in {folder} has shift_factor {vae.config['shift_factor']}; StableDiffusionPipeline and "
            "ConsistencyDecoderVAE ignore it: use a VAE without one"
        )


def _copy_encoder(vae: AutoencoderKL, decoder: ConsistencyDecoderVAE) -> None:
    """Make ``decoder.encode`` compute what ``vae.encode`` computes, in bits up to the order of sums.

    The stock class always has attention in the middle of its encoder and a quant_conv; where the VAE has none, they are
    set to add nothing and to change nothing.
    """
    missing, unexpected = decoder.encoder.load_state_dict(vae.encoder.state_dict(), strict=False)
    if unexpected or any(".attentions." not in name for name in missing):
        raise ValueError(f"the VAE's encoder does not fit ConsistencyDecoderVAE: {unexpected or missing}")
    with torch.no_grad():
        if missing:
            for name, parameter in decoder.encoder.mid_block.attentions.named_parameters():
                parameter.fill_(1.0 if name.endswith("group_norm.weight") else 0.0)
        if vae.quant_conv is not None:
            decoder.quant_conv.load_state_dict(vae.quant_conv.state_dict())
        else:
            weight = torch.eye(2 * vae.config["latent_channels"])[:, :, None, None]
            decoder.quant_conv.load_state_dict({"weight": weight, "bias": torch.zeros(len(weight))})
