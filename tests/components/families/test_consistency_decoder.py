from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ConsistencyDecoderVAE

from components.contracts import Rows
from components.data.scene_graph import key_for, scene_for
from components.data.scene_rendering import render
from components.diffusion.latent_decoder import condition, denoiser_of, row_generators, to_pixel_values, to_pixels
from components.diffusion.schedule import cosine_schedule
from components.families.consistency_decoder.config import ConsistencyDecoderConfig
from components.families.consistency_decoder.objective import ConsistencyDecoder, num_scales_at, pseudo_huber
from components.families.consistency_decoder.sample import decode, load_consistency_decoder
from components.families.diffusion_decoder.config import DiffusionDecoderConfig
from components.training.config import TrainingConfig
from components.training.loop import Trainer
from components.training.randomness import SeededRandom
from tests.outside import decoded_alike

SMALL = ConsistencyDecoderConfig(min_scales=4, max_scales=8, num_annealing_steps=10, num_teacher_steps=3)
TRAINING = TrainingConfig(num_steps=30, batch_size=16, learning_rate=2e-3, precision="fp32")


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A VAE with random weights and a teacher that has learnt for a few steps."""
    folder = tmp_path_factory.mktemp("parents")
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.5,
    ).save_pretrained(folder / "vae")
    config = DiffusionDecoderConfig(block_out_channels=(16, 16), num_inference_steps=3)
    teacher = config.build(*_rows(), {"vae": folder / "vae"})
    for _ in Trainer(teacher, TRAINING).run():
        pass
    teacher.save(folder / "teacher")
    return {"vae": folder / "vae", "diffusion_decoder": folder / "teacher"}


@pytest.fixture
def family(parents: dict[str, Path]) -> ConsistencyDecoder:
    return SMALL.build(*_rows(), parents)


def _rows() -> tuple[Rows, Rows]:
    indices = range(24)
    pixels = render([scene_for(index, 0) for index in indices], 16)
    pooled = torch.nn.functional.avg_pool2d(to_pixel_values(pixels), 2)  # colours: latents as a good VAE has them
    latents = torch.cat([pooled, pooled[:, :1]], dim=1).half().numpy()
    keys = [key_for(index) for index in indices]
    return Rows(keys[:16], pixels[:16], {}, latents[:16]), Rows(keys[16:], pixels[16:], {}, latents[16:])


def test_student_starts_as_its_teacher(family: ConsistencyDecoder, parents: dict[str, Path]) -> None:
    latents = family.shown_latents
    assert np.array_equal(
        decode(family.distillation.decoder, latents),
        decode(load_consistency_decoder(parents["diffusion_decoder"]), latents),
    )


def test_loss_of_a_fixed_batch_falls_and_the_teacher_stays(parents: dict[str, Path]) -> None:
    # a target that hardly moves, so that both losses measure the distance to the same aim
    family = SMALL.model_copy(update={"target_decay": 0.9999}).build(*_rows(), parents)
    (objective,) = family.objectives()
    teacher = {name: value.clone() for name, value in family.distillation.teacher.state_dict().items()}
    rng = SeededRandom(5, 10, np.arange(16))  # from step 10 on the grid has its final size
    batch = family.batch(np.arange(16), rng)
    before = float(objective.loss(batch, rng).value.detach())
    for _ in Trainer(family, TRAINING.model_copy(update={"learning_rate": 1e-3})).run():
        pass
    assert float(objective.loss(batch, rng).value.detach()) < 0.97 * before
    for name, value in family.distillation.teacher.state_dict().items():
        assert torch.equal(value, teacher[name])


def test_rows_of_data_are_drawn_to_their_picture_at_the_timesteps_of_sampling(parents: dict[str, Path]) -> None:
    config = SMALL.model_copy(update={"data_fraction": 1.0, "first_step_fraction": 0.5})
    family = config.build(*_rows(), parents)
    (objective,) = family.objectives()
    rng = SeededRandom(5, 0, np.arange(16))
    batch = family.batch(np.arange(16), rng)
    schedule = cosine_schedule()
    timesteps = torch.where(rng.uniform("scale") < 0.5, 1008, 512)
    assert set(timesteps.tolist()) == {1008, 512}
    noisy = schedule.add_noise(batch["pixel_values"], rng.normal("noise", (3, 16, 16)), timesteps)
    decoder = family.distillation.decoder
    denoiser = denoiser_of(decoder.decoder_unet, schedule, condition(decoder, batch["latents"]))
    expected = pseudo_huber(denoiser(noisy, timesteps), batch["pixel_values"], config.huber_scale).mean()
    torch.testing.assert_close(objective.loss(batch, rng).value, expected)


def test_rows_of_data_leave_the_others_to_the_teacher(parents: dict[str, Path]) -> None:
    rng = SeededRandom(5, 10, np.arange(16))
    losses = {}
    for share in (0.0, 0.5, 1.0):
        family = SMALL.model_copy(update={"data_fraction": share}).build(*_rows(), parents)
        with torch.no_grad():  # a teacher that says something else, so that its rows can be told
            family.distillation.teacher.conv_out.bias += 0.5
        (objective,) = family.objectives()
        losses[share] = [
            float(objective.loss(family.batch(rows, rows_rng), rows_rng).value)
            for row in range(16)
            for rows, rows_rng in [(np.array([row]), SeededRandom(5, 10, np.array([row])))]
        ]
    is_data = (rng.uniform("kind") < 0.5).tolist()
    assert 0 < sum(is_data) < 16
    for mixed, distilled, data, is_drawn in zip(losses[0.5], losses[0.0], losses[1.0], is_data, strict=True):
        assert mixed == (data if is_drawn else distilled)


def test_target_follows_the_student_slowly(family: ConsistencyDecoder) -> None:
    (objective,) = family.objectives()
    student, target = family.distillation.decoder.decoder_unet, family.distillation.target
    start = target.conv_out.weight.clone()
    with torch.no_grad():
        student.conv_out.weight += 1.0
    objective.after_step(0)
    torch.testing.assert_close(target.conv_out.weight, start + 0.05)


def test_no_gradient_reaches_teacher_or_target(family: ConsistencyDecoder) -> None:
    (objective,) = family.objectives()
    rng = SeededRandom(0, 0, np.arange(4))
    objective.loss(family.batch(np.arange(4), rng), rng).value.backward()
    assert all(parameter.grad is None for parameter in family.distillation.teacher.parameters())
    assert all(parameter.grad is None for parameter in family.distillation.target.parameters())
    assert any(parameter.grad is not None for parameter in family.distillation.decoder.decoder_unet.parameters())


@pytest.mark.parametrize(
    ("step", "num_scales"), [(0, 8), (99, 8), (100, 16), (199, 16), (200, 32), (299, 32), (300, 40), (10_000, 40)]
)
def test_scales_double_evenly_up_to_the_largest_number(step: int, num_scales: int) -> None:
    config = ConsistencyDecoderConfig(min_scales=8, max_scales=40, num_annealing_steps=300)
    assert num_scales_at(step, config) == num_scales


def test_fewer_scales_at_the_end_than_at_the_start_are_refused() -> None:
    with pytest.raises(ValueError, match="max_scales 4 is below min_scales 8"):
        ConsistencyDecoderConfig(min_scales=8, max_scales=4)


def test_pseudo_huber_is_square_near_zero_and_straight_far_away() -> None:
    zero = torch.zeros(1, 3, 4, 4)
    near, far = (float(pseudo_huber(zero + value, zero, 0.1)) for value in (0.001, 100.0))
    assert near == pytest.approx(0.001**2 / (2 * 0.1), rel=1e-2)
    assert far == pytest.approx(100 - 0.1, rel=1e-4)
    assert float(pseudo_huber(zero, zero, 0.1)) == 0


def test_preview_compares_student_teacher_and_vae(family: ConsistencyDecoder) -> None:
    preview = family.preview()
    assert preview.image is not None
    assert set(preview.metrics) == {
        f"{name}_{figure}" for name in ("vae", "teacher", "consistency") for figure in ("psnr", "detail_ratio")
    } | {"sample_contrast", "sample_variety"}
    again = family.preview().image
    assert again is not None
    assert again.tobytes() == preview.image.tobytes()


def test_saved_folder_decodes_the_same_in_the_stock_class(family: ConsistencyDecoder, tmp_path: Path) -> None:
    for _ in Trainer(family, TRAINING.model_copy(update={"num_steps": 2})).run():
        pass
    family.save(tmp_path)
    assert str(tmp_path.parent) not in (tmp_path / "config.json").read_text()
    stock = ConsistencyDecoderVAE.from_pretrained(tmp_path)
    latents = torch.from_numpy(family.shown_latents.astype(np.float32))
    with torch.no_grad():
        sample = stock.decode(latents / stock.config["scaling_factor"], generator=row_generators(0, range(8))).sample
    inside = decode(family.distillation.decoder, family.shown_latents)
    difference = np.abs(inside.astype(int) - to_pixels(sample).astype(int))
    assert difference.max() <= 1  # a rounding step of 1/255
    assert inside.shape == (8, 16, 16, 3)


def test_saved_folder_decodes_the_same_without_atelier(family: ConsistencyDecoder, tmp_path: Path) -> None:
    family.save(tmp_path / "student")
    decoded_alike(tmp_path / "student", family.shown_latents, tmp_path)


def test_other_numbers_of_steps_are_refused(family: ConsistencyDecoder) -> None:
    with pytest.raises(ValueError, match=r"num_inference_steps=4: .*2 steps"):
        decode(family.distillation.decoder, family.shown_latents, 4)


def test_pretrained_of_another_architecture_is_refused(parents: dict[str, Path], tmp_path: Path) -> None:
    other = DiffusionDecoderConfig(block_out_channels=(8, 8), starts_as_linear=False)
    other.build(*_rows(), parents).save(tmp_path)
    with pytest.raises(ValueError, match="differ in decoder_block_out_channels"):
        SMALL.model_copy(update={"pretrained": str(tmp_path)}).build(*_rows(), parents)


def test_rows_without_latents_are_refused(parents: dict[str, Path]) -> None:
    train, evaluation = _rows()
    with pytest.raises(ValueError, match="need latents"):
        SMALL.build(Rows(train.keys, train.pixels, {}), evaluation, parents)


def test_stock_text_to_image_pipeline_takes_the_decoder_as_its_vae(parents: dict[str, Path]) -> None:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel, UniPCMultistepScheduler
    from transformers import T5Config, T5EncoderModel

    from components.data.tokenization import train_tokenizer

    tokenizer = train_tokenizer(["a red circle"], vocab_size=300, max_length=8)
    torch.manual_seed(0)
    text = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
    )
    scheduler = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    decoder = ConsistencyDecoderVAE.from_pretrained(parents["diffusion_decoder"])
    pipeline = StableDiffusionPipeline(
        vae=decoder,
        text_encoder=T5EncoderModel(text).eval(),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    rng = torch.Generator().manual_seed(0)
    latents = pipeline("a red circle", num_inference_steps=2, generator=rng, output_type="latent").images
    with torch.no_grad():  # the pipeline divides by its vae's scaling factor and goes on with the same generator
        expected = to_pixels(decoder.decode(latents / 0.5, generator=rng).sample)
    rng = torch.Generator().manual_seed(0)
    (picture,) = pipeline("a red circle", num_inference_steps=2, generator=rng).images
    assert picture.size == (16, 16)
    assert np.abs(np.asarray(picture).astype(int) - expected[0].astype(int)).max() <= 1
