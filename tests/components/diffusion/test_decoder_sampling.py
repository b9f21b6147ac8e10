from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import ConsistencyDecoderVAE

from components.diffusion.latent_decoder import condition, decode_latents, ode_timesteps, row_generators, to_pixels
from components.diffusion.sampling import ddim_step, heun_step, sample_consistency, sample_ode
from components.diffusion.schedule import TWO_STEPS, cosine_schedule

DATA_STD = 0.4


def exact_denoiser(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """E[x_0 | x_t] of pictures whose values are independent N(0, 0.4^2)."""
    schedule = cosine_schedule()
    signal, noise = schedule.signal(timesteps), schedule.noise(timesteps)
    return signal * DATA_STD**2 / (signal**2 * DATA_STD**2 + noise**2) * noisy


@pytest.fixture(scope="module")
def decoder() -> ConsistencyDecoderVAE:
    """A stock decoder with random weights and a scaling factor that is not 1."""
    torch.manual_seed(0)
    return ConsistencyDecoderVAE(
        scaling_factor=0.7,
        encoder_block_out_channels=(8, 16),
        encoder_down_block_types=("DownEncoderBlock2D",) * 2,
        encoder_layers_per_block=1,
        encoder_norm_num_groups=4,
        decoder_block_out_channels=(8, 16),
        decoder_down_block_types=("DownBlock2D",) * 2,
        decoder_up_block_types=("UpBlock2D",) * 2,
        decoder_layers_per_block=1,
        decoder_norm_num_groups=4,
        decoder_time_embedding_type="positional",
    ).eval()


@pytest.fixture(scope="module")
def latents() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 4, 8, 8)).astype(np.float16)


@pytest.mark.reference
def test_two_steps_equal_the_stock_class(decoder: ConsistencyDecoderVAE, latents: np.ndarray) -> None:
    ours = decode_latents(decoder, latents, 2, seed=3)
    stock_input = torch.from_numpy(latents.astype(np.float32)) / decoder.config["scaling_factor"]
    with torch.no_grad():
        stock = decoder.decode(stock_input, generator=row_generators(3, range(5))).sample
    difference = np.abs(ours.astype(int) - to_pixels(stock).astype(int))
    assert difference.max() <= 1  # one step of rounding
    assert (difference > 0).mean() < 1e-3


@pytest.mark.reference
def test_consistency_sampling_repeats_the_stock_scheduler() -> None:
    from diffusers.schedulers import ConsistencyDecoderScheduler

    from components.diffusion.scalings import denoise

    def network(scaled: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        t = timesteps.reshape(-1, 1, 1, 1)
        return scaled * t / (t + 1)

    scheduler, schedule = ConsistencyDecoderScheduler(), cosine_schedule()
    scheduler.set_timesteps(2)
    rng = torch.Generator().manual_seed(7)
    x = scheduler.init_noise_sigma * torch.randn(2, 3, 8, 8, generator=rng)
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, rng).prev_sample
    rng = torch.Generator().manual_seed(7)
    ours = sample_consistency(
        lambda noisy, timesteps: denoise(network, schedule, noisy, timesteps),
        schedule,
        lambda: torch.randn(2, 3, 8, 8, generator=rng),
        TWO_STEPS,
    )
    torch.testing.assert_close(ours, x, rtol=1e-5, atol=1e-6)


def test_ode_walk_ends_at_the_known_solution() -> None:
    schedule, noise = cosine_schedule(), torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    # the flow of a Gaussian scales: x_0 = x_t * std_0 / std_t, and the start has deviation noise(1008)
    start = torch.tensor([TWO_STEPS[0]])
    end_std = torch.sqrt(schedule.signal(start) ** 2 * DATA_STD**2 + schedule.noise(start) ** 2)
    expected = noise * schedule.noise(start) * DATA_STD / end_std
    errors = [
        float((sample_ode(exact_denoiser, schedule, noise, ode_timesteps(schedule, steps)) - expected).abs().mean())
        for steps in (8, 25, 50)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


def test_heun_is_nearer_to_the_ode_than_ddim() -> None:
    schedule = cosine_schedule()
    t, s = torch.tensor([512]), torch.tensor([480])
    x = torch.ones(1, 3, 4, 4)

    def deviation(at: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(schedule.signal(at) ** 2 * DATA_STD**2 + schedule.noise(at) ** 2)

    exact = x * deviation(s) / deviation(t)
    errors = [float((step(exact_denoiser, schedule, x, t, s) - exact).abs().max()) for step in (ddim_step, heun_step)]
    assert errors[1] < errors[0] / 5


@pytest.mark.parametrize("step", [ddim_step, heun_step])
def test_steps_may_differ_from_row_to_row(step: Callable[..., torch.Tensor]) -> None:
    schedule = cosine_schedule()
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    t, s = torch.tensor([900, 300]), torch.tensor([700, 0])
    together = step(exact_denoiser, schedule, x, t, s)
    alone = torch.cat([step(exact_denoiser, schedule, x[i : i + 1], t[i : i + 1], s[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("num_inference_steps", [1, 2, 5])
def test_pictures_do_not_depend_on_the_batch(
    decoder: ConsistencyDecoderVAE, latents: np.ndarray, num_inference_steps: int
) -> None:
    whole = decode_latents(decoder, latents, num_inference_steps, seed=1)
    pieces = decode_latents(decoder, latents, num_inference_steps, seed=1, batch_size=2)
    assert whole.shape == (5, 16, 16, 3)
    assert np.abs(whole.astype(int) - pieces.astype(int)).max() <= 1
    other = decode_latents(decoder, latents, num_inference_steps, seed=2)
    assert np.abs(whole.astype(int) - other.astype(int)).mean() > 0.1


def test_latents_are_standardised_by_the_constants_of_the_class(decoder: ConsistencyDecoderVAE) -> None:
    features = condition(decoder, torch.zeros(1, 4, 2, 2))
    expected = torch.tensor([0.38862467, 0.02253063, 0.07381133, -0.0171294]) / -torch.tensor(
        [0.9654121, 1.0440036, 0.76147926, 0.77022034]
    )
    assert features.shape == (1, 4, 4, 4)
    torch.testing.assert_close(features[0, :, 3, 3], expected)


def test_no_steps_are_refused(decoder: ConsistencyDecoderVAE, latents: np.ndarray) -> None:
    with pytest.raises(ValueError, match="num_inference_steps=0: at least 1"):
        decode_latents(decoder, latents, 0)
