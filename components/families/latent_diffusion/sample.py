"""What a trained text-to-image model does: prompts become pictures, through the stock pipeline alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

from .model import load_pipeline, with_vae

__all__ = ["generate", "generate_latents", "load_pipeline", "with_vae"]


def generate(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    num_inference_steps: int = 16,
    guidance_scale: float = 3.0,
    vae: torch.nn.Module | None = None,
    batch_size: int = 64,
) -> np.ndarray:
    """A picture for each prompt, uint8 (N, H, W, 3).

    Each prompt's noise comes from its own seed alone, so that batching changes nothing beyond the last bit, and the
    stock pipeline, called with one prompt and ``torch.Generator().manual_seed(seed)``, draws the same picture. ``vae``
    decodes in place of the pipeline's own.
    """
    if vae is not None:
        pipeline = with_vae(pipeline, vae)
    images = _run(pipeline, prompts, seeds, num_inference_steps, guidance_scale, batch_size, "np")  # [0, 1]
    return (images * 255).round().astype(np.uint8)


def generate_latents(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    num_inference_steps: int = 16,
    guidance_scale: float = 3.0,
    batch_size: int = 64,
) -> np.ndarray:
    """The latents of :func:`generate`, float32 (N, C, h, w) as the U-Net sees them, for several decoders to share."""
    return _run(pipeline, prompts, seeds, num_inference_steps, guidance_scale, batch_size, "latent")


def _run(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    num_inference_steps: int,
    guidance_scale: float,
    batch_size: int,
    output_type: str,
) -> np.ndarray:
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts; give one seed per prompt")
    pieces = []
    for start in range(0, len(prompts), batch_size):
        images = pipeline(
            list(prompts[start : start + batch_size]),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[start : start + batch_size]],
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            output_type=output_type,
            return_dict=False,
        )[0]
        pieces.append(images.cpu().numpy() if isinstance(images, torch.Tensor) else np.asarray(images))
    return np.concatenate(pieces)
