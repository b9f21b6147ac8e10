"""The recipe ``base``: 64-pixel pictures on one GPU."""

from components.families.attribute_judge.config import JudgeConfig
from components.families.captioner.config import CaptionerConfig
from components.families.clip.config import ClipConfig
from components.families.consistency_decoder.config import ConsistencyDecoderConfig
from components.families.diffusion_decoder.config import DiffusionDecoderConfig
from components.families.latent_diffusion.config import LatentDiffusionConfig
from components.families.prompt_upsampler.config import PromptUpsamplerConfig
from components.families.vae.config import VaeConfig
from components.training.config import TrainingConfig

from .recipe import DataConfig, EvaluationConfig, MapConfig, RecaptionConfig, Recipe, StudyConfig, Trained


def base() -> Recipe:
    """``make demo RECIPE=base`` on a machine with one GPU. Neither its duration nor its figures are measured yet.

    ``atelier estimate --recipe base`` counts 102 M parameters and 18.8 TFLOP a step for the text-to-image model.
    """

    def training(num_steps: int, batch_size: int, learning_rate: float, **changes) -> TrainingConfig:
        return TrainingConfig(
            num_steps=num_steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            num_warmup_steps=num_steps // 50,
            num_threads=4,
            num_gpus_per_worker=1.0,
            log_every=50,
            checkpoint_every=2000,
            **changes,
        )

    clip = ClipConfig(vision_width=384, vision_layers=8, vision_heads=6, text_width=384, text_layers=6, text_heads=6)
    captioner = CaptionerConfig(
        tower_widths=(64, 128, 256, 512), decoder_width=512, decoder_layers=6, decoder_heads=8, contrastive_weight=0.1
    )
    gpu = MapConfig(num_cpus_per_worker=2.0, num_gpus_per_worker=1.0)
    return Recipe(
        name="base",
        data=DataConfig(resolution=64),
        evaluation_clip=Trained(
            model=clip.model_copy(update={"text_kinds": ("truth_dsc", "truth_ssc")}),
            training=training(10_000, 512, 5e-4),
        ),
        attribute_judge=Trained(model=JudgeConfig(half="first"), training=training(5_000, 256, 2e-3)),
        second_judge=Trained(model=JudgeConfig(half="second", seed=1), training=training(5_000, 256, 2e-3, seed=1)),
        clip=Trained(model=clip, training=training(10_000, 512, 5e-4)),
        base_captioner=Trained(model=captioner, training=training(10_000, 256, 5e-4)),
        ssc_captioner=Trained(
            model=captioner.model_copy(update={"text_kind": "ssc_example", "contrastive_weight": 0.0}),
            training=training(2_000, 128, 3e-4),
        ),
        dsc_captioner=Trained(
            model=captioner.model_copy(update={"text_kind": "dsc_example", "contrastive_weight": 0.0}),
            training=training(4_000, 128, 3e-4),
        ),
        recaption=RecaptionConfig(workers=gpu, batch_multiple=512),
        vae=Trained(model=VaeConfig(block_out_channels=(64, 128)), training=training(20_000, 128, 5e-4)),
        latents=gpu,
        prompt_upsampler=Trained(
            model=PromptUpsamplerConfig(d_model=512, d_ff=1024, num_layers=6), training=training(10_000, 256, 5e-4)
        ),
        latent_diffusion=Trained(
            model=LatentDiffusionConfig(
                block_out_channels=(128, 256, 512),
                layers_per_block=(2, 2, 2),
                num_attention_heads=8,
                norm_num_groups=32,
                num_inference_steps=25,
            ),
            training=training(100_000, 256, 3e-4, ema_decay=0.9999, preview_every=10_000, compile=True),
        ),
        diffusion_decoder=Trained(
            model=DiffusionDecoderConfig(
                block_out_channels=(64, 128), layers_per_block=2, norm_num_groups=8, starts_as_linear=False
            ),
            training=training(50_000, 128, 3e-4, ema_decay=0.9999),
        ),
        consistency_decoder=Trained(model=ConsistencyDecoderConfig(), training=training(20_000, 128, 1e-4)),
        evaluation=EvaluationConfig(
            num_prompts=2_000, num_pictures=2_000, num_inference_steps=25, guidance_scale=3.0, batch_size=256
        ),
        study=StudyConfig(long_factor=1),
    )
