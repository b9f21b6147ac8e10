from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import T5Config, T5EncoderModel

from components.contracts import CachesInputs, Rows
from components.data import scenes as world
from components.data.lake import Lake
from components.data.scratch import Scratch
from components.data.tokenization import train_tokenizer
from components.families.latent_diffusion.config import LatentDiffusionConfig
from components.families.latent_diffusion.model import new_scheduler, new_unet
from components.families.latent_diffusion.objective import LatentDiffusion
from components.families.latent_diffusion.sample import generate, generate_latents, load_pipeline
from components.training.config import TrainingConfig
from components.training.loop import Trainer
from components.training.randomness import SeededRandom

SMALL = LatentDiffusionConfig(
    block_out_channels=(8, 16),
    layers_per_block=(0, 1),
    has_attention=(False, True),
    num_attention_heads=2,
    norm_num_groups=4,
    num_inference_steps=3,
)
PROMPTS = ["large red circle top left, on a gray background", "small blue star bottom right, on a pink background", ""]


def rows_of(first: int, number: int) -> Rows:
    scenes = [world.scene_for(index, 0) for index in range(first, first + number)]
    texts = {"caption": [f"photo {index}" for index in range(number)], "dsc": [world.dsc(scene) for scene in scenes]}
    latents = np.random.default_rng(first).standard_normal((number, 4, 16, 16)).astype(np.float16)
    return Rows([str(index) for index in range(number)], np.zeros((number, 32, 32, 3), np.uint8), texts, latents)


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small folders of a VAE and a text encoder, as their own stages save them."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("parents")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        scaling_factor=1.0,
    ).save_pretrained(folder / "vae")
    tokenizer = train_tokenizer([text for text in rows_of(0, 50).texts["dsc"] if text], vocab_size=500, max_length=40)
    tokenizer.save_pretrained(folder / "text_encoder")
    config = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    config.use_attention_mask = True
    T5EncoderModel(config).save_pretrained(folder / "text_encoder")
    return {"vae": folder / "vae", "text_encoder": folder / "text_encoder"}


@pytest.fixture(scope="module")
def family(parents: dict[str, Path]) -> LatentDiffusion:
    torch.manual_seed(0)
    family = SMALL.build(rows_of(0, 32), rows_of(500, 16), parents)
    training = TrainingConfig(num_steps=3, batch_size=8, learning_rate=1e-3, precision="fp32", ema_decay=0.9)
    trainer = Trainer(family, training)
    for _ in trainer.run():
        pass
    for module in family.modules().values():
        module.eval()
    return family


@pytest.fixture(scope="module")
def folder(family: LatentDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("latent_diffusion")
    family.save(path)
    return path


def test_the_loss_of_one_batch_falls_and_moves_the_text_encoder(parents: dict[str, Path]) -> None:
    torch.manual_seed(0)
    family = SMALL.build(rows_of(0, 8), rows_of(8, 4), parents)
    rng = SeededRandom(0, 0, np.arange(8))
    batch = family.batch(rng.rows, rng)
    (objective,) = family.objectives()
    before = {name: value.clone() for name, value in family.text_encoder.state_dict().items()}
    optimizer = torch.optim.AdamW(objective.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        loss = objective.loss(batch, rng).value
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert any(not torch.equal(value, before[name]) for name, value in family.text_encoder.state_dict().items())


def test_a_frozen_text_encoder_gets_no_gradient(parents: dict[str, Path]) -> None:
    config = SMALL.model_copy(update={"trains_text_encoder": False})
    family = config.build(rows_of(0, 8), rows_of(8, 4), parents)
    rng = SeededRandom(0, 0, np.arange(4))
    (objective,) = family.objectives()
    objective.loss(family.batch(rng.rows, rng), rng).value.backward()
    moved = {id(parameter) for parameter in objective.parameters()}
    assert all(parameter.grad is None for parameter in family.text_encoder.parameters())
    assert not moved & {id(parameter) for parameter in family.text_encoder.parameters()}


def test_cached_embeddings_are_those_of_the_text_encoder(parents: dict[str, Path], tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"trains_text_encoder": False, "synthetic_fraction": 0.5, "caption_dropout": 0.3})
    rows = rows_of(0, 32)
    rows.texts["dsc"][3] = None  # its raw caption stands in
    plain, caching = (config.build(rows, rows, parents) for _ in range(2))
    asked: list[str] = []
    scratch = Scratch(Lake(str(tmp_path / "lake")), tmp_path)

    def cache(name: str, shape: tuple[int, ...], dtype: np.dtype, values: Iterable[np.ndarray]) -> np.ndarray:
        asked.append(name)
        return scratch.array(f"{name}.npy", shape, dtype, values)

    assert isinstance(caching, CachesInputs)
    caching.cache_inputs(cache)
    assert sorted(asked) == ["text-caption", "text-dsc"]
    for step in range(5):
        rng = SeededRandom(0, step, np.arange(32))
        (objective,), ours = caching.objectives(), caching.batch(rng.rows, rng)
        theirs = objective._encoded(plain.batch(rng.rows, rng))
        assert torch.allclose(ours["prompt_embeds"], theirs, atol=2e-3)
    with_encoder, without = (objective.loss(each.batch(rng.rows, rng), rng).value for each in (plain, caching))
    assert without.item() == pytest.approx(with_encoder.item(), rel=1e-3)


def test_a_text_encoder_that_is_trained_on_is_not_cached(parents: dict[str, Path]) -> None:
    family = SMALL.build(rows_of(0, 8), rows_of(8, 4), parents)
    family.cache_inputs(lambda *_: pytest.fail("nothing may be cached"))
    assert "input_ids" in family.batch(np.arange(4), SeededRandom(0, 0, np.arange(4)))


def test_activations_that_are_computed_again_change_no_loss(parents: dict[str, Path]) -> None:
    losses = {}
    for again in (False, True):
        torch.manual_seed(0)
        family = SMALL.build(rows_of(0, 8), rows_of(8, 4), parents)
        training = TrainingConfig(
            num_steps=3, batch_size=8, learning_rate=1e-3, precision="fp32", log_every=1, gradient_checkpointing=again
        )
        losses[again] = [step.scalars["diffusion/loss"] for step in Trainer(family, training).run()]
        assert family.unet.is_gradient_checkpointing is again
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)


def test_captions_follow_the_blend(parents: dict[str, Path]) -> None:
    rows = rows_of(0, 32)
    for fraction, kind in ((1.0, "dsc"), (0.0, "caption")):
        config = SMALL.model_copy(update={"synthetic_fraction": fraction, "caption_dropout": 0.0})
        family = config.build(rows, rows, parents)
        rng = SeededRandom(0, 3, np.arange(32))
        ids = family.batch(rng.rows, rng)["input_ids"]
        written = [text.strip() for text in family.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        assert written == [str(text) for text in rows.texts[kind]]
    config = SMALL.model_copy(update={"synthetic_fraction": 0.5, "caption_dropout": 0.25})
    family = config.build(rows, rows, parents)
    written = []
    for step in range(20):
        rng = SeededRandom(0, step, np.arange(32))
        ids = family.batch(rng.rows, rng)["input_ids"]
        written += [text.strip() for text in family.tokenizer.batch_decode(ids, skip_special_tokens=True)]
    assert np.mean([not text for text in written]) == pytest.approx(0.25, abs=0.06)
    assert np.mean([text.startswith("photo") for text in written]) == pytest.approx(0.375, abs=0.07)


@pytest.mark.reference
def test_the_flow_is_the_one_that_the_stock_scheduler_follows() -> None:
    scheduler = new_scheduler()
    scheduler.set_timesteps(10)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for sigma, timestep in zip(scheduler.sigmas, scheduler.timesteps, strict=False):
        noisy = (1 - sigma) * latents + sigma * noise
        assert abs(float(timestep) - 1000 * float(sigma)) <= 1
        scheduler._init_step_index(timestep)
        denoised = scheduler.convert_model_output(noise - latents, sample=noisy)
        torch.testing.assert_close(denoised, latents, atol=1e-5, rtol=1e-4)


@pytest.mark.reference
def test_the_true_velocity_carries_noise_to_the_latents() -> None:
    scheduler = new_scheduler()
    scheduler.set_timesteps(8)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sample = noise
    for timestep in scheduler.timesteps:
        sample = scheduler.step(noise - latents, timestep, sample).prev_sample
    torch.testing.assert_close(sample, latents, atol=5e-3, rtol=1e-2)  # the first sigma is 0.999


def test_a_new_unet_starts_with_silent_branches() -> None:
    torch.manual_seed(0)
    unet = new_unet(SMALL, (4, 16, 16), 16)
    sample, embeds = torch.randn(2, 4, 16, 16), torch.randn(2, 40, 16)
    with torch.no_grad():
        with_text = unet(sample, 500, encoder_hidden_states=embeds).sample
        without_text = unet(sample, 10, encoder_hidden_states=torch.zeros_like(embeds)).sample
    assert torch.equal(with_text, without_text)  # text and time enter through branches alone


def test_preview_draws_held_out_prompts_from_fixed_seeds(family: LatentDiffusion) -> None:
    preview, again = family.preview(), family.preview()
    assert preview.image is not None
    assert again.image is not None
    assert preview.image.tobytes() == again.image.tobytes()
    assert preview.metrics == again.metrics
    assert len(preview.rows) == 12
    assert preview.rows[0]["prompt"] == rows_of(500, 1).texts["dsc"][0]


def test_the_stock_pipeline_draws_the_same_picture_from_the_same_seed(family: LatentDiffusion, folder: Path) -> None:
    stock = StableDiffusionPipeline.from_pretrained(folder)
    stock.set_progress_bar_config(disable=True)
    rng = torch.Generator().manual_seed(7)
    picture = stock(PROMPTS[0], generator=rng, num_inference_steps=3, guidance_scale=3.0).images[0]
    assert picture.size == (32, 32)
    pixels = generate(load_pipeline(folder), PROMPTS, [5, 7, 9], num_inference_steps=3, batch_size=2)
    assert pixels.shape == (3, 32, 32, 3)
    again = generate(family.pipeline, PROMPTS[:1], [7], num_inference_steps=3)
    assert np.abs(again[0].astype(int) - np.asarray(picture).astype(int)).max() <= 1


def test_pictures_do_not_depend_on_their_batch_but_on_their_seed(family: LatentDiffusion) -> None:
    prompts = [PROMPTS[0]] * 3
    together = generate(family.pipeline, prompts, [1, 2, 1], num_inference_steps=3)
    alone = generate(family.pipeline, prompts, [1, 2, 1], num_inference_steps=3, batch_size=1)
    assert np.abs(together.astype(int) - alone).max() <= 1
    assert np.abs(together[0].astype(int) - together[1]).max() > 1
    assert np.abs(together[0].astype(int) - together[2]).max() <= 1
    with pytest.raises(ValueError, match="one seed per prompt"):
        generate(family.pipeline, prompts, [1], num_inference_steps=3)


def test_latents_decode_to_the_same_pictures(family: LatentDiffusion) -> None:
    latents = generate_latents(family.pipeline, PROMPTS, range(3), num_inference_steps=3)
    assert latents.shape == (3, 4, 16, 16)
    with torch.no_grad():
        drawn = family.pipeline.vae.decode(torch.from_numpy(latents), return_dict=False)[0]
    drawn = (drawn.clamp(-1, 1) + 1).permute(0, 2, 3, 1).numpy() * 127.5
    pixels = generate(family.pipeline, PROMPTS, range(3), num_inference_steps=3)
    assert np.abs(drawn - pixels).max() <= 1


def test_the_same_weights_give_the_same_bytes_without_paths(
    family: LatentDiffusion, folder: Path, parents: dict[str, Path], tmp_path: Path
) -> None:
    family.save(tmp_path)
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    assert Path("unet/diffusion_pytorch_model.safetensors") in files
    for file in files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()
        if file.suffix == ".json":
            assert str(parents["vae"].parent) not in (folder / file).read_text()


def test_a_pretrained_pipeline_is_trained_on(
    family: LatentDiffusion, folder: Path, parents: dict[str, Path], tmp_path: Path
) -> None:
    config = LatentDiffusionConfig(pretrained=str(folder), num_inference_steps=2)
    again = config.build(rows_of(0, 8), rows_of(8, 4), {"vae": parents["vae"]})
    assert all(torch.equal(v, again.unet.state_dict()[name]) for name, v in family.unet.state_dict().items())
    list(Trainer(again, TrainingConfig(num_steps=1, batch_size=4, learning_rate=1e-3, precision="fp32")).run())
    again.save(tmp_path)
    assert not any(str(folder) in file.read_text() for file in tmp_path.rglob("*.json"))
    assert load_pipeline(tmp_path).unet.config["sample_size"] == 16


def test_a_pipeline_of_another_prediction_is_refused(
    family: LatentDiffusion, parents: dict[str, Path], tmp_path: Path
) -> None:
    parts = {**family.pipeline.components, "scheduler": DDIMScheduler(steps_offset=1)}
    StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(tmp_path)
    config = LatentDiffusionConfig(pretrained=str(tmp_path))
    other = config.build(rows_of(0, 8), rows_of(8, 4), {"vae": parents["vae"]})
    with pytest.raises(ValueError, match="'epsilon'"):
        other.objectives()


def test_rows_and_settings_that_cannot_work_are_refused(parents: dict[str, Path]) -> None:
    rows = rows_of(0, 4)
    with pytest.raises(ValueError, match="materialize latents"):
        SMALL.build(Rows(rows.keys, rows.pixels, rows.texts), rows, parents)
    with pytest.raises(ValueError, match="no captions of kind"):
        SMALL.build(Rows(rows.keys, rows.pixels, {"caption": rows.texts["caption"]}, rows.latents), rows, parents)
    with pytest.raises(ValueError, match="one entry per level"):
        LatentDiffusionConfig(block_out_channels=(8, 16))
