"""Counts of a dry run against those of a network whose cost is known, and of the recipes."""

import pytest
import torch

from components.pipeline.estimate import estimate
from components.recipes import load_recipe
from components.training.dry_run import BYTES_PER_PARAMETER, dry_run


class TwoLayers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(64, 128, bias=False), torch.nn.Linear(128, 32, bias=False)

    def forward(self, x):
        return (self.second(self.first(x)),)


def test_counts_are_those_of_two_matrix_products():
    counts = dry_run(TwoLayers, lambda rows: {"x": torch.empty(rows, 64)})
    assert counts.num_parameters == 64 * 128 + 128 * 32
    # forward 2 n, backward 2 n for the weights and 2 n for the inputs, of which the first layer needs none
    assert counts.flops_per_row == 6 * (64 * 128 + 128 * 32) - 2 * 64 * 128
    assert counts.state_bytes == BYTES_PER_PARAMETER * counts.num_parameters
    assert counts.activation_bytes_per_row >= 2 * (64 + 128)
    assert counts.hours(10, 100, 1e9) == pytest.approx(counts.flops_per_row * 1000 / 1e9 / 3600)


@pytest.mark.parametrize("name", ["tiny", "base", "paper"])
def test_a_recipe_is_estimated_without_its_weights(name):
    said = list(estimate(load_recipe(name), flops_per_second=4e14, price_per_hour=3.0).lines())
    assert len(said) == 4
    assert "parameters" in said[0]
    assert "device hours" in said[3]


def test_cost_grows_with_the_batch_and_counts_do_not():
    small, large = (load_recipe("base", {"latent_diffusion.training.batch_size": size}) for size in ("64", "128"))
    costs = [estimate(recipe, flops_per_second=1e14, price_per_hour=1.0) for recipe in (small, large)]
    assert costs[0].counts == costs[1].counts
    assert costs[1].counts.flops_per_step(128) == 2 * costs[0].counts.flops_per_step(64)


def test_a_text_encoder_whose_width_is_unknown_is_named():
    recipe = load_recipe("paper", {"prompt_upsampler.model.pretrained": "/models/t5"})
    with pytest.raises(ValueError, match="'/models/t5' does not tell its width"):
        estimate(recipe, flops_per_second=1e14, price_per_hour=1.0)
