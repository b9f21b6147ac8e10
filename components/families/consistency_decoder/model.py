"""Teacher, student and target: three copies of one stock decoder's U-Net. No loss belongs here."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.autoencoders.consistency_decoder_vae import ConsistencyDecoderVAE

from components.diffusion.latent_decoder import load_decoder

from .config import ConsistencyDecoderConfig


@dataclass(frozen=True, slots=True)
class Distillation:
    """``decoder`` holds the student as its U-Net; ``teacher`` and ``target`` are U-Nets that no gradient reaches."""

    decoder: ConsistencyDecoderVAE
    teacher: torch.nn.Module
    target: torch.nn.Module


def new_distillation(config: ConsistencyDecoderConfig, teacher_folder: Path) -> Distillation:
    """A student that starts as its teacher (or as ``config.pretrained``), and its target, which starts as the student.

    ValueError where ``config.pretrained`` has another architecture than the teacher.
    """
    decoder = load_decoder(teacher_folder)
    teacher = _frozen(decoder.decoder_unet)
    if config.pretrained:
        start = load_decoder(config.pretrained)
        theirs, ours = _architecture(start), _architecture(decoder)
        differing = sorted(name for name in ours if ours[name] != theirs.get(name))
        if differing:
            raise ValueError(f"pretrained {config.pretrained!r} and the teacher differ in {', '.join(differing)}")
        decoder.decoder_unet.load_state_dict(start.decoder_unet.state_dict())
    return Distillation(decoder, teacher, _frozen(decoder.decoder_unet))


def _architecture(decoder: ConsistencyDecoderVAE) -> dict[str, object]:
    """The U-Net's settings; JSON makes lists of tuples."""
    settings = {name: value for name, value in decoder.config.items() if name.startswith("decoder_")}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def _frozen(unet: torch.nn.Module) -> torch.nn.Module:
    return copy.deepcopy(unet).eval().requires_grad_(False)
