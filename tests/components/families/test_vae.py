import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from components.contracts import Rows
from components.data.scene_graph import key_for, scene_for
from components.data.scene_rendering import encode_png, render
from components.families.vae.config import VaeConfig
from components.families.vae.objective import Vae, latent_penalties
from components.families.vae.sample import SHAPE_METADATA, LatentWorker, decode, encode, load_vae
from components.schemas import LATENTS, RAW_PAIRS
from components.training.config import TrainingConfig
from components.training.loop import Trainer
from components.training.randomness import SeededRandom
from tests.checkpoints import save_vae

SMALL = VaeConfig(block_out_channels=(8, 16), norm_num_groups=1)


def rows_of(first: int, number: int) -> Rows:
    scenes = [scene_for(index, 0) for index in range(first, first + number)]
    return Rows([key_for(index) for index in range(first, first + number)], render(scenes, 32), {})


def psnr(pixels: np.ndarray, others: np.ndarray) -> float:
    return float(-10 * np.log10(np.square((pixels.astype(float) - others) / 255).mean()))


@pytest.fixture(scope="module")
def family() -> Vae:
    """A small VAE after a few steps."""
    torch.manual_seed(0)
    family = SMALL.build(rows_of(0, 128), rows_of(9000, 12), {})
    training = TrainingConfig(num_steps=30, batch_size=8, learning_rate=2e-3, precision="fp32", num_warmup_steps=5)
    for _ in Trainer(family, training).run():
        pass
    family.vae.eval()
    return family


@pytest.fixture(scope="module")
def folder(family: Vae, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vae")
    family.save(path)
    return path


def test_an_untrained_vae_already_gives_a_coarse_picture_back() -> None:
    torch.manual_seed(0)
    rows = rows_of(0, 32)
    pooling = SMALL.build(rows, rows, {}).vae
    assert psnr(rows.pixels, decode(pooling, encode(pooling, rows.pixels))) > 21
    plain = SMALL.model_copy(update={"starts_as_average": False}).build(rows, rows, {}).vae
    assert psnr(rows.pixels, decode(plain, encode(plain, rows.pixels))) < 12


def test_the_loss_of_one_batch_falls() -> None:
    torch.manual_seed(1)
    fresh = SMALL.build(rows_of(0, 16), rows_of(16, 4), {})
    rng = SeededRandom(0, 0, np.arange(16))
    batch = fresh.batch(rng.rows, rng)
    assert batch["pixel_values"].shape == (16, 3, 32, 32)
    optimizer = torch.optim.AdamW(fresh.objective.parameters(), 3e-4)
    losses = []
    for _ in range(8):
        loss = fresh.objective.loss(batch, rng).value
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_penalties_vanish_for_white_latents_and_name_what_is_wrong() -> None:
    white = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])[:, :, None, None]  # (B, C, 1, 1)
    moments, covariance = latent_penalties(white)
    assert float(moments) == pytest.approx(0, abs=1e-6)
    assert float(covariance) == pytest.approx(0, abs=1e-6)
    moments, covariance = latent_penalties(white * 3 + 2)
    assert float(moments) == pytest.approx(2**2 + (3 - 1) ** 2, rel=1e-4)
    moments, covariance = latent_penalties(white[:, :1].expand(-1, 2, 1, 1))  # two equal channels
    assert float(covariance) == pytest.approx(2.0, rel=1e-4)


def test_preview_shows_originals_over_reconstructions(family: Vae) -> None:
    preview = family.preview()
    assert preview.image is not None
    assert preview.image.size == (8 * 64 + 7 * 4, 2 * 64 + 4)
    assert preview.metrics["psnr"] > 22
    assert family.preview().image.tobytes() == preview.image.tobytes()


def test_a_saved_vae_has_latents_of_unit_variance_and_draws_the_same(family: Vae, folder: Path) -> None:
    stock = AutoencoderKL.from_pretrained(folder).eval()
    assert stock.config["scaling_factor"] == 1.0
    pixels = rows_of(0, 128).pixels
    vae = load_vae(folder)
    latents = encode(vae, pixels)
    assert latents.shape == (128, 4, 16, 16)
    assert latents.dtype == np.float16
    assert np.abs(latents.astype(float).mean((0, 2, 3))).max() < 0.01
    assert np.abs(latents.astype(float).std((0, 2, 3)) - 1).max() < 0.01
    before = decode(family.vae, encode(family.vae, pixels))
    assert np.abs(before.astype(int) - decode(vae, latents)).max() <= 3  # float16 latents of another scale
    posterior = stock.encode(torch.zeros(1, 3, 32, 32)).latent_dist
    raw = encode(family.vae, pixels).astype(float).std((0, 2, 3))
    np.testing.assert_allclose(posterior.std[0, :, 0, 0].detach(), SMALL.latent_noise / raw, rtol=0.01)


def test_the_same_weights_give_the_same_bytes_without_paths(family: Vae, folder: Path, tmp_path: Path) -> None:
    family.save(tmp_path / "again")
    load_vae(folder).save_pretrained(tmp_path / "reloaded")
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    for place in (folder, tmp_path / "reloaded"):
        assert str(folder) not in (place / "config.json").read_text()


def test_a_pretrained_vae_keeps_its_architecture_and_scaling(tmp_path: Path) -> None:
    hub = save_vae(tmp_path / "hub")
    rows = rows_of(0, 8)
    family = VaeConfig(pretrained=str(tmp_path / "hub")).build(rows, rows, {})
    family.save(tmp_path / "saved")
    saved = AutoencoderKL.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(value, saved.state_dict()[name]) for name, value in hub.state_dict().items())
    assert "hub" not in json.dumps(json.loads((tmp_path / "saved" / "config.json").read_text()))
    pixel_values = torch.from_numpy(rows.pixels).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = (hub.encode(pixel_values).latent_dist.mean - 0.5) * 0.25
    np.testing.assert_allclose(encode(load_vae(tmp_path / "saved"), rows.pixels), expected, atol=2e-3)
    latents = encode(family.vae, rows.pixels)
    with torch.no_grad():
        drawn = hub.decode(torch.from_numpy(latents.astype(np.float32)) / 0.25 + 0.5).sample
    drawn = ((drawn.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    assert np.abs(decode(family.vae, latents) - drawn).max() < 0.6


def test_a_worker_encodes_stored_pictures_row_group_by_row_group(folder: Path, tmp_path: Path) -> None:
    rows = rows_of(40, 10)
    columns = {name: [None] * 10 for name in RAW_PAIRS.schema.names}
    columns |= {
        "key": list(rows.keys),
        "image": [encode_png(one) for one in rows.pixels],
        "width": [32] * 10,
        "height": [32] * 10,
        **{name: [f"{name}-{key}" for key in rows.keys] for name in ("sha256", "source_sha256", "caption")},
        **{name: [name] * 10 for name in ("source", "license", "perceptual_hash")},
        "colours": [b"48 bytes"] * 10,
    }
    path = tmp_path / "raw.parquet"
    pq.write_table(pa.table(columns, schema=RAW_PAIRS.schema), path, row_group_size=6)
    work = LatentWorker(str(folder), resolution=32, batch_size=4)()
    tables = [work({"uri": path.as_uri(), "row_group": group}) for group in range(2)]
    assert [table.num_rows for table in tables] == [6, 4]
    assert tables[0].schema.equals(LATENTS.schema)
    assert tables[0].schema.metadata == {SHAPE_METADATA: b"4,16,16"}
    assert [key for table in tables for key in table["key"].to_pylist()] == list(rows.keys)
    assert tables[1]["sha256"][0].as_py() == f"sha256-{rows.keys[6]}"
    latents = np.concatenate([np.stack(table["latents"].to_numpy()) for table in tables]).reshape(10, 4, 16, 16)
    np.testing.assert_allclose(latents, encode(load_vae(folder), rows.pixels), atol=2e-3)


def test_settings_that_cannot_work_are_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match="lower norm_num_groups"):
        VaeConfig(block_out_channels=(8, 16), norm_num_groups=2)
    with pytest.raises(ValueError, match="must divide every width"):
        VaeConfig(block_out_channels=(16, 33), norm_num_groups=2)
    rows = Rows(["a"], np.zeros((1, 30, 30, 3), np.uint8), {})
    with pytest.raises(ValueError, match="choose a resolution that 4 divides"):
        VaeConfig(block_out_channels=(16, 16, 16)).build(rows, rows, {})
    with pytest.raises(ValueError, match="0 held out"):
        VaeConfig().build(rows, Rows([], rows.pixels[:0], {}), {})
