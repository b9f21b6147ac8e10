"""The recipe ``paper``: DALL-E 3's shape at 256 pixels, on many GPUs, from public weights where there are any."""

from components.families.hub_captioner.config import DSC_PROMPT, SSC_PROMPT, HubCaptionerConfig
from components.families.latent_diffusion.config import LatentDiffusionConfig
from components.families.prompt_upsampler.config import PromptUpsamplerConfig
from components.families.vae.config import VaeConfig
from components.training.config import TrainingConfig

from .base import base
from .recipe import DataConfig, Recipe, Trained

T5_XXL = "google/t5-v1_1-xxl"
CAPTIONER = "Qwen/Qwen2.5-VL-7B-Instruct"
VAE_F8 = "stabilityai/sd-vae-ft-mse"


def paper() -> Recipe:
    """T5-XXL, the f8 VAE of Rombach et al., 500,000 steps at batch 2,048 (Betker et al. 2023, section 3.2, App. A).

    The paper does not disclose the U-Net's size; this one follows Stable Diffusion's. Its captioner is not public; a
    stock vision-language model with two prompts stands in its place. Put paths of local copies in place of the hub ids
    with ``--set vae.model.pretrained=...`` (likewise ``prompt_upsampler``, ``base_captioner``).
    Not measured. ``atelier estimate --recipe paper`` counts 968 M parameters, 1,140 TFLOP a step and 21 GiB for each of
    64 workers, which share weights and optimizer, and so about 400 device hours at 400 TFLOP/s each, without the text
    encoder, the VAE and the data.
    """
    untrained = TrainingConfig(num_steps=0, batch_size=1, learning_rate=1e-4, num_gpus_per_worker=1.0)
    return base().model_copy(
        update={
            "name": "paper",
            "data": DataConfig(resolution=256, fit="crop"),
            "base_captioner": Trained(
                model=HubCaptionerConfig(pretrained=CAPTIONER, prompt=DSC_PROMPT), training=untrained
            ),
            "ssc_captioner": Trained(
                model=HubCaptionerConfig(prompt=SSC_PROMPT, max_new_tokens=24), training=untrained
            ),
            "dsc_captioner": Trained(model=HubCaptionerConfig(prompt=DSC_PROMPT), training=untrained),
            "vae": Trained(model=VaeConfig(pretrained=VAE_F8), training=untrained),
            "prompt_upsampler": Trained(model=PromptUpsamplerConfig(pretrained=T5_XXL), training=untrained),
            "latent_diffusion": Trained(
                model=LatentDiffusionConfig(
                    block_out_channels=(320, 640, 1280, 1280),
                    layers_per_block=(2, 2, 2, 2),
                    has_attention=(True, True, True, False),
                    num_attention_heads=8,
                    norm_num_groups=32,
                    trains_text_encoder=False,
                    caches_text_embeddings=False,  # at 4,096 wide a megabyte for each caption
                    num_inference_steps=50,
                    guidance_scale=7.5,
                ),
                training=TrainingConfig(
                    num_steps=500_000,
                    batch_size=2_048,
                    learning_rate=1e-4,
                    lr_schedule="constant",
                    num_warmup_steps=10_000,
                    ema_decay=0.9999,
                    num_threads=8,
                    num_workers=64,
                    min_workers=16,
                    sharding="full",
                    num_checkpoints=2,
                    num_gpus_per_worker=1.0,
                    log_every=100,
                    preview_every=10_000,
                    checkpoint_every=5_000,
                ),
            ),
        }
    )
