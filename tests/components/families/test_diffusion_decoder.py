from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ConsistencyDecoderVAE

from components.contracts import Rows
from components.data.scene_graph import key_for, scene_for
from components.data.scene_rendering import render
from components.diffusion.latent_decoder import condition, denoiser_of, to_pixel_values
from components.diffusion.schedule import cosine_schedule
from components.families.diffusion_decoder.config import DiffusionDecoderConfig
from components.families.diffusion_decoder.linear_start import start_as_linear_denoiser
from components.families.diffusion_decoder.model import new_decoder
from components.families.diffusion_decoder.objective import DiffusionDecoder, noise_weight
from components.families.diffusion_decoder.sample import decode, load_diffusion_decoder
from components.training.config import TrainingConfig
from components.training.loop import Trainer
from components.training.randomness import SeededRandom

SMALL = DiffusionDecoderConfig(block_out_channels=(16, 16), num_inference_steps=3)


def new_vae(folder: Path, **settings: Any) -> AutoencoderKL:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        sample_size=16,
        **{"scaling_factor": 0.5, "latent_channels": 4, **settings},
    ).eval()
    vae.save_pretrained(folder)
    return vae


def new_rows(vae: AutoencoderKL, first: int, count: int) -> Rows:
    indices = range(first, first + count)
    pixels = render([scene_for(index, 0) for index in indices], 16)
    with torch.no_grad():
        mean = vae.encode(to_pixel_values(pixels)).latent_dist.mean
    latents = (mean * vae.config["scaling_factor"]).half().numpy()
    return Rows([key_for(index) for index in indices], pixels, {}, latents)


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    new_vae(folder, mid_block_add_attention=False)
    return folder


@pytest.fixture(scope="module")
def rows(vae_folder: Path) -> tuple[Rows, Rows]:
    vae = AutoencoderKL.from_pretrained(vae_folder)
    return new_rows(vae, 0, 16), new_rows(vae, 100, 6)


@pytest.fixture
def family(vae_folder: Path, rows: tuple[Rows, Rows]) -> DiffusionDecoder:
    torch.manual_seed(1)
    return SMALL.build(*rows, {"vae": vae_folder})


@pytest.mark.parametrize("starts_as_linear", [True, False])
def test_loss_of_a_fixed_batch_falls(rows: tuple[Rows, Rows], vae_folder: Path, starts_as_linear: bool) -> None:
    torch.manual_seed(1)
    config = SMALL.model_copy(update={"starts_as_linear": starts_as_linear})
    family = config.build(*rows, {"vae": vae_folder})
    rng = SeededRandom(5, 0, np.arange(16))
    batch = family.batch(np.arange(16), rng)
    (objective,) = family.objectives()
    before = float(objective.loss(batch, rng).value.detach())
    training = TrainingConfig(num_steps=25, batch_size=16, learning_rate=5e-3, precision="fp32")
    for _ in Trainer(family, training).run():
        pass
    after = float(objective.loss(batch, rng).value.detach())
    assert after < 0.93 * before


def test_random_start_looks_at_the_noisy_picture_alone(rows: tuple[Rows, Rows], vae_folder: Path) -> None:
    config = SMALL.model_copy(update={"starts_as_linear": False})
    unet = config.build(*rows, {"vae": vae_folder}).decoder.decoder_unet
    output = unet(torch.randn(2, 7, 16, 16), torch.tensor([1008, 0])).sample
    assert not output.any()


def linear_pair(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of coloured 4x4 blocks and latents that hold their colours exactly, but for a mixing of channels."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
    pixels = blocks.repeat(4, axis=1).repeat(4, axis=2)
    colours = blocks.repeat(2, axis=1).repeat(2, axis=2).transpose(0, 3, 1, 2) / 127.5 - 1  # (N, 3, 8, 8)
    mixing = rng.normal(size=(4, 3))
    return pixels, np.einsum("ij,njhw->nihw", mixing, colours).astype(np.float32)


@pytest.mark.parametrize(("timestep", "largest_error"), [(1008, 0.02), (512, 0.02), (143, 0.02), (24, 0.01)])
def test_linear_start_already_denoises_what_is_linear(vae_folder: Path, timestep: int, largest_error: float) -> None:
    schedule = cosine_schedule()
    torch.manual_seed(1)
    decoder = new_decoder(DiffusionDecoderConfig(), vae_folder)
    pixels, latents = linear_pair(40)
    start_as_linear_denoiser(decoder, pixels, latents)
    features = condition(decoder, torch.from_numpy(latents))
    clean = to_pixel_values(pixels)
    timesteps = torch.full((len(clean),), timestep)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        denoiser = denoiser_of(decoder.decoder_unet, schedule, features)
        denoised = denoiser(schedule.add_noise(clean, noise, timesteps), timesteps)
    assert float((denoised - clean).square().mean()) < largest_error


def test_linear_start_needs_room_in_the_first_norm_group(vae_folder: Path) -> None:
    decoder = new_decoder(DiffusionDecoderConfig(norm_num_groups=2), vae_folder)
    with pytest.raises(ValueError, match="16 in 2 groups"):
        start_as_linear_denoiser(decoder, *linear_pair(2))


def test_preview_shows_four_rows_of_held_out_pictures(family: DiffusionDecoder) -> None:
    preview = family.preview()
    assert preview.image is not None
    assert preview.image.width > preview.image.height  # six columns, four rows
    assert set(preview.metrics) == {
        f"{name}_{figure}" for name in ("vae", "teacher", "teacher_2") for figure in ("psnr", "detail_ratio")
    } | {"sample_contrast", "sample_variety"}
    assert all(np.isfinite(value) for value in preview.metrics.values())
    again = family.preview().image
    assert again is not None
    assert again.tobytes() == preview.image.tobytes()


def test_saved_folder_is_stock_and_decodes_the_same(
    family: DiffusionDecoder, rows: tuple[Rows, Rows], tmp_path: Path
) -> None:
    _randomise(family)
    family.save(tmp_path / "a")
    family.save(tmp_path / "b")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["config.json", "diffusion_pytorch_model.safetensors"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert str(tmp_path.parent) not in (tmp_path / "a" / "config.json").read_text()
    latents = rows[1].latents
    assert latents is not None
    inside = decode(family.decoder, latents, 4)
    assert np.array_equal(decode(load_diffusion_decoder(tmp_path / "a"), latents, 4), inside)
    assert not np.array_equal(decode(family.decoder, latents, 4, seed=1), inside)


@pytest.mark.parametrize(
    "settings", [{}, {"mid_block_add_attention": False}, {"use_quant_conv": False, "use_post_quant_conv": False}]
)
def test_encoder_is_the_one_of_the_vae(settings: dict[str, Any], tmp_path: Path) -> None:
    vae = new_vae(tmp_path / "vae", **settings)
    new_decoder(SMALL, tmp_path / "vae").save_pretrained(tmp_path / "decoder")
    stock = ConsistencyDecoderVAE.from_pretrained(tmp_path / "decoder")
    pixel_values = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        expected = vae.encode(pixel_values).latent_dist
        actual = stock.encode(pixel_values).latent_dist
    torch.testing.assert_close(actual.mean, expected.mean)
    torch.testing.assert_close(actual.std, expected.std)
    assert stock.config["scaling_factor"] == 0.5


def test_pretrained_network_is_continued_whatever_the_configured_widths(
    family: DiffusionDecoder, vae_folder: Path, tmp_path: Path
) -> None:
    _randomise(family)
    family.save(tmp_path)
    config = DiffusionDecoderConfig(pretrained=str(tmp_path), block_out_channels=(32, 64))
    continued = new_decoder(config, vae_folder).decoder_unet.state_dict()
    for name, value in family.decoder.decoder_unet.state_dict().items():
        assert torch.equal(continued[name], value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"latent_channels": 8}, "8 latent channels.*latent_channels 4"), ({"shift_factor": 0.1}, "shift_factor 0.1")],
)
def test_vae_that_the_stock_class_cannot_decode_is_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    new_vae(tmp_path, **settings)
    with pytest.raises(ValueError, match=message):
        new_decoder(SMALL, tmp_path)


def test_rows_without_latents_are_refused(rows: tuple[Rows, Rows], vae_folder: Path) -> None:
    train, evaluation = rows
    bare = Rows(train.keys, train.pixels, {})
    with pytest.raises(ValueError, match=r"training rows .16. need latents"):
        SMALL.build(bare, evaluation, {"vae": vae_folder})


def test_latents_of_another_size_are_refused(rows: tuple[Rows, Rows], vae_folder: Path) -> None:
    train, evaluation = rows
    assert train.latents is not None
    wrong = Rows(train.keys, train.pixels, {}, train.latents[:, :, ::2, ::2])
    with pytest.raises(ValueError, match=r"latents are 4x4.*make 8x8"):
        SMALL.build(wrong, evaluation, {"vae": vae_folder})


def test_little_noise_weighs_more_and_much_noise_counts_once() -> None:
    weight = noise_weight(cosine_schedule(), torch.tensor([1008, 512, 0]), 0.1)
    assert weight.tolist() == pytest.approx([1.0, 1.0097, 249.2], rel=1e-3)


def _randomise(family: DiffusionDecoder) -> None:
    torch.manual_seed(2)
    for parameter in family.decoder.decoder_unet.conv_out.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
