import pytest
import torch
from diffusers.schedulers import ConsistencyDecoderScheduler

from components.diffusion.scalings import scalings_at
from components.diffusion.schedule import NUM_TRAIN_TIMESTEPS, cosine_schedule, karras_timesteps, timesteps_at

ALL = torch.arange(NUM_TRAIN_TIMESTEPS)


@pytest.mark.reference
def test_schedule_equals_the_stock_scheduler_bit_for_bit() -> None:
    stock, schedule = ConsistencyDecoderScheduler(), cosine_schedule()
    assert torch.equal(schedule.signal(ALL).flatten(), stock.sqrt_alphas_cumprod)
    assert torch.equal(schedule.noise(ALL).flatten(), stock.sqrt_one_minus_alphas_cumprod)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["c_skip", "c_out", "c_in"])
def test_scalings_equal_the_stock_scheduler_at_every_timestep(name: str) -> None:
    ours = getattr(scalings_at(cosine_schedule(), ALL), name).flatten()
    torch.testing.assert_close(ours, getattr(ConsistencyDecoderScheduler(), name), rtol=1e-6, atol=0)


@pytest.mark.reference
@pytest.mark.parametrize(
    ("timestep", "c_skip", "c_out", "c_in"),
    [(1008, 0.0057089527, 0.49996742, 1.0001955), (512, 0.27810015, 0.44857253, 1.2591236)],
)
def test_scalings_have_the_published_values(timestep: int, c_skip: float, c_out: float, c_in: float) -> None:
    scalings = scalings_at(cosine_schedule(), torch.tensor([timestep]))
    values = [float(value) for value in (scalings.c_skip, scalings.c_out, scalings.c_in)]
    assert values == pytest.approx([c_skip, c_out, c_in], rel=2e-6)


def test_boundary_condition_holds_where_noise_ends() -> None:
    scalings = scalings_at(cosine_schedule(), torch.tensor([0]))
    assert float(scalings.c_skip) == pytest.approx(1, abs=2e-4)
    assert float(scalings.c_out) < 1 / 127.5  # one step of an 8-bit picture in [-1, 1]


def test_network_reads_unit_variance_at_every_timestep() -> None:
    schedule = cosine_schedule()
    timesteps = torch.tensor([0, 50, 512, 1008])
    rng = torch.Generator().manual_seed(0)
    clean = 0.5 * torch.randn(4, 3, 64, 64, generator=rng)
    noisy = schedule.add_noise(clean, torch.randn(clean.shape, generator=rng), timesteps)
    deviation = (scalings_at(schedule, timesteps).c_in * noisy).std((1, 2, 3))
    torch.testing.assert_close(deviation, torch.ones(4), atol=0.03, rtol=0)


@pytest.mark.parametrize("num_timesteps", [3, 8, 25, 32, 50])
def test_grid_falls_from_the_first_step_through_the_second_to_clean(num_timesteps: int) -> None:
    grid = karras_timesteps(cosine_schedule(), num_timesteps)
    assert len(grid) == num_timesteps
    assert (grid[0], grid[-1]) == (1008, 0)
    assert 512 in grid
    assert bool((grid[1:] < grid[:-1]).all())


def test_grid_is_dense_where_little_noise_is_left() -> None:
    sigmas = cosine_schedule().sigmas[karras_timesteps(cosine_schedule(), 25)]
    assert int((sigmas < 1.1).sum()) >= 10


@pytest.mark.parametrize(("num_timesteps", "message"), [(1, "at least 2"), (400, "choose fewer")])
def test_impossible_grids_are_refused_with_the_number(num_timesteps: int, message: str) -> None:
    with pytest.raises(ValueError, match=rf"num_timesteps={num_timesteps}: .*{message}"):
        karras_timesteps(cosine_schedule(), num_timesteps)


def test_drawn_timesteps_cover_the_whole_way() -> None:
    timesteps = timesteps_at(cosine_schedule(), torch.linspace(0, 1, 2001))
    assert (int(timesteps.max()), int(timesteps.min())) == (1008, 0)
    assert len(timesteps.unique()) > 700
