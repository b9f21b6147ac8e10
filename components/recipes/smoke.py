"""The recipe ``smoke``: the whole graph in seconds per stage, to see that everything runs; nothing is learned well."""

from components.captioning.quality import QualityConfig
from components.evaluation.decoder_gate import DecoderGateConfig
from components.families.attribute_judge.config import JudgeConfig
from components.families.captioner.config import CaptionerConfig
from components.families.clip.config import ClipConfig
from components.families.consistency_decoder.config import ConsistencyDecoderConfig
from components.families.diffusion_decoder.config import DiffusionDecoderConfig
from components.families.latent_diffusion.config import LatentDiffusionConfig
from components.families.prompt_upsampler.config import PromptUpsamplerConfig
from components.families.vae.config import VaeConfig
from components.training.config import TrainingConfig

from .recipe import DataConfig, DecoderStudyConfig, EvaluationConfig, RecaptionConfig, Recipe, StudyConfig, Trained

LENIENT = QualityConfig(
    max_rejected_fraction=1.0,
    max_leading_article_fraction=1.0,
    min_distinct=0,
    min_clip_margin=-100,
    max_style_drift=1.0,
    max_length_ratio=1000.0,
    max_length_shift=1.0,
    max_word_drift=1.0,
    max_invented_fraction=1.0,
    max_golden_failures=1.0,
)
LENIENT_GATE = DecoderGateConfig(
    max_fid_ratio=1000.0,
    min_detail_ratio=0.0,
    max_detail_ratio=1000.0,
    max_scene_loss=1.0,
    max_scene_loss_to_vae=1.0,
    min_speedup=0.0,
    must_beat_undistilled=False,
    must_beat_vae=False,
)


def smoke() -> Recipe:
    """``make smoke``: the whole graph with a few steps each; captions and pictures stay poor."""

    def training(num_steps: int, batch_size: int = 16, learning_rate: float = 2e-3, **changes) -> TrainingConfig:
        return TrainingConfig(
            num_steps=num_steps, batch_size=batch_size, learning_rate=learning_rate, log_every=5, **changes
        )

    return Recipe(
        name="smoke",
        data=DataConfig(resolution=32, max_shards=2, max_rows_per_shard=256),
        evaluation_clip=Trained(model=ClipConfig(text_kinds=("truth_dsc", "truth_ssc")), training=training(20)),
        attribute_judge=Trained(model=JudgeConfig(half="first"), training=training(30)),
        second_judge=Trained(model=JudgeConfig(half="second", seed=1), training=training(30, seed=1)),
        clip=Trained(model=ClipConfig(), training=training(20)),
        base_captioner=Trained(model=CaptionerConfig(contrastive_weight=0.1), training=training(30)),
        ssc_captioner=Trained(model=CaptionerConfig(text_kind="ssc_example"), training=training(60)),
        dsc_captioner=Trained(model=CaptionerConfig(text_kind="dsc_example"), training=training(60)),
        recaption=RecaptionConfig(num_gate_pictures=16, quality=LENIENT),
        vae=Trained(model=VaeConfig(), training=training(30)),
        prompt_upsampler=Trained(model=PromptUpsamplerConfig(), training=training(30)),
        latent_diffusion=Trained(
            model=LatentDiffusionConfig(num_inference_steps=4), training=training(20, ema_decay=0.9)
        ),
        diffusion_decoder=Trained(
            model=DiffusionDecoderConfig(num_inference_steps=4), training=training(20, ema_decay=0.9)
        ),
        consistency_decoder=Trained(model=ConsistencyDecoderConfig(), training=training(10)),
        evaluation=EvaluationConfig(
            num_prompts=16,
            num_pictures=16,
            num_inference_steps=4,
            guidance_scale=3.0,
            num_teacher_steps=4,
            batch_size=16,
            num_shown=8,
            num_suite_prompts=2,
        ),
        decoder_gate=LENIENT_GATE,
        study=StudyConfig(num_seeds=1, long_factor=1, num_points=2, num_curve_prompts=8),
        decoder_study=DecoderStudyConfig(num_seeds=2),
    )
