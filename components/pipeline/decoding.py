"""The decoders that are compared with each other, and their figures on held-out pictures.

What belongs here: which decoders, in how many steps, with which noise; the report and the study of decoders share it.
What does not: metrics (``components.evaluation``) and what is done with the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.contracts import Rows
from components.recipes.recipe import EvaluationConfig

if TYPE_CHECKING:
    from diffusers.models.autoencoders.consistency_decoder_vae import ConsistencyDecoderVAE

    from components.evaluation.figures import DecoderFigures, GeneratedDecoderFigures
    from components.evaluation.measurement import Judges


@dataclass(frozen=True, slots=True)
class Decoder:
    """A way from latents (N, 4, h, w) to pictures uint8 (N, H, W, 3), and its network evaluations per picture."""

    num_inference_steps: int
    decode: Callable[[np.ndarray], np.ndarray]


def load_decoders(vae: Path, teacher: Path, student: Path, config: EvaluationConfig) -> dict[str, Decoder]:
    """The VAE's own decoder, the teacher in many steps and undistilled in two, the student, from model folders."""
    from components.diffusion.latent_decoder import load_decoder

    diffusion = load_decoder(teacher)
    return {
        "vae": plain_decoder(vae, config),
        "teacher": diffused(diffusion, config.num_teacher_steps, config),
        "teacher_2": diffused(diffusion, 2, config),
        "consistency": two_step_decoder(student, config),
    }


def plain_decoder(vae: Path, config: EvaluationConfig) -> Decoder:
    """The VAE's own decoder, from its model folder."""
    from components.families.vae.sample import decode, load_vae

    model = load_vae(vae)
    return Decoder(1, lambda latents: decode(model, latents, batch_size=config.batch_size))


def two_step_decoder(student: Path, config: EvaluationConfig) -> Decoder:
    """The consistency decoder of a model folder."""
    from components.diffusion.latent_decoder import load_decoder

    return diffused(load_decoder(student), 2, config)


def diffused(model: ConsistencyDecoderVAE, num_steps: int, config: EvaluationConfig) -> Decoder:
    """A diffusion decoder in so many steps."""
    from components.diffusion.latent_decoder import decode_latents

    seed, batch_size = config.seed, config.batch_size
    return Decoder(
        num_steps, lambda latents: decode_latents(model, latents, num_steps, seed=seed, batch_size=batch_size)
    )


def measure_decoders(
    decoders: Mapping[str, Decoder],
    decoded: Mapping[str, np.ndarray],
    rows: Rows,
    judges: Judges,
    config: EvaluationConfig,
    generated: Mapping[str, GeneratedDecoderFigures] | None = None,
) -> dict[str, DecoderFigures]:
    """Figures of each decoder's pictures ``decoded`` of the rows' latents, and how fast it makes them."""
    from components.evaluation.latency import images_per_second
    from components.evaluation.measurement import evaluate_decoder

    batch = np.asarray(rows.latents)[: config.batch_size]
    return {
        name: evaluate_decoder(
            decoded[name],
            rows.pixels,
            judges,
            num_inference_steps=decoder.num_inference_steps,
            scenes=rows.scenes,
            images_per_second=images_per_second(
                lambda decoder=decoder: decoder.decode(batch),
                len(batch),
                num_repeats=1 if decoder.num_inference_steps > 2 else 6,
            ),
            generated=(generated or {}).get(name),
        )
        for name, decoder in decoders.items()
    }
