"""Training is exact: order and randomness depend on (seed, step, row) alone, and a stopped training goes on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from components.contracts import Loss, Preview
from components.training.checkpoint import CheckpointFolder
from components.training.config import TrainingConfig
from components.training.loop import NonFiniteLoss, Trainer
from components.training.randomness import SeededRandom, rows_at


class LineFamily:
    """Learns y = 3 x + 1 from noisy points: small, but with everything that a family has."""

    num_rows = 40

    def __init__(self, scale: float = 1.0) -> None:
        torch.manual_seed(0)
        self.line = torch.nn.Linear(1, 1)
        self.scale = scale

    def batch(self, rows: np.ndarray, rng: SeededRandom) -> Mapping[str, Any]:
        x = torch.from_numpy(rows).float()[:, None] / self.num_rows
        return {"x": x, "y": 3 * x + 1 + 0.01 * rng.normal("noise", (1,))}

    def objectives(self):
        return [self]

    name = "line"

    def parameters(self):
        return self.line.parameters()

    def loss(self, batch, rng):
        error = (self.line(batch["x"]) - batch["y"]).square().mean() * self.scale
        return Loss(error, {"uniform": rng.uniform("u").mean()})

    def after_step(self, step):
        pass

    def modules(self):
        return {"line": self.line}

    def save(self, folder):
        torch.save(self.line.state_dict(), folder / "line.pt")

    def preview(self):
        return Preview()


def config(**changes) -> TrainingConfig:
    values = {"num_steps": 60, "batch_size": 8, "learning_rate": 0.2, "precision": "fp32", "ema_decay": 0.9}
    return TrainingConfig(**{**values, **changes})


def weights(trainer: Trainer) -> list[torch.Tensor]:
    with trainer.averaged_weights():
        return [p.detach().clone() for p in trainer.family.line.parameters()]


def test_every_row_is_seen_once_in_each_epoch_and_batches_span_epochs():
    steps = [rows_at(step, batch_size=12, num_rows=40, seed=3) for step in range(10)]
    seen = np.concatenate(steps)
    for epoch in range(3):
        assert sorted(seen[epoch * 40 : (epoch + 1) * 40]) == list(range(40))
    assert not np.array_equal(seen[:40], seen[40:80])


def test_a_batch_larger_than_the_data_set_repeats_it():
    assert sorted(rows_at(0, batch_size=10, num_rows=4, seed=0)[:8]) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_rows_draw_does_not_depend_on_its_neighbours():
    together = SeededRandom(1, 7, np.array([4, 9, 2])).normal("noise", (2, 3))
    alone = SeededRandom(1, 7, np.array([9])).normal("noise", (2, 3))
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(alone, SeededRandom(1, 7, np.array([9])).normal("other", (2, 3)))
    assert not torch.equal(alone, SeededRandom(1, 8, np.array([9])).normal("noise", (2, 3)))


def test_training_lowers_the_loss_and_logs_at_intervals():
    steps = list(Trainer(LineFamily(), config(log_every=20)).run())
    logged = {step.step: step.scalars for step in steps if step.scalars}
    assert list(logged) == [1, 20, 40, 60]
    assert logged[60]["line/loss"] < 0.05 * logged[1]["line/loss"]
    assert steps[-1].learning_rate < 1e-4


def test_a_resumed_training_ends_with_the_same_weights(tmp_path):
    undisturbed = Trainer(LineFamily(), config())
    list(undisturbed.run())
    settings = config(checkpoint_every=20)
    stopped = Trainer(LineFamily(), settings, checkpoints=CheckpointFolder(tmp_path))
    for step in stopped.run():
        if step.step == 47:
            break
    resumed = Trainer(LineFamily(), settings, checkpoints=CheckpointFolder(tmp_path))
    steps = [step.step for step in resumed.run()]
    assert steps[0] == 41
    for ours, theirs in zip(weights(resumed), weights(undisturbed), strict=True):
        assert torch.equal(ours, theirs)


def test_accumulated_micro_batches_see_the_same_rows_and_noise():
    whole, parts = Trainer(LineFamily(), config()), Trainer(LineFamily(), config(gradient_accumulation=4))
    last = [list(trainer.run())[-1].scalars for trainer in (whole, parts)]
    assert last[0]["line/loss"] == pytest.approx(last[1]["line/loss"], rel=1e-4)
    assert last[0]["line/uniform"] == pytest.approx(last[1]["line/uniform"], rel=1e-6)


def test_averaged_weights_are_put_back():
    trainer = Trainer(LineFamily(), config())
    list(trainer.run())
    before = [p.detach().clone() for p in trainer.family.line.parameters()]
    averaged = weights(trainer)
    assert not torch.equal(before[0], averaged[0])
    assert torch.equal(before[0], trainer.family.line.weight)


def test_a_batch_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="choose a multiple of 3"):
        Trainer(LineFamily(), config(gradient_accumulation=3))


def test_a_loss_that_is_not_finite_stops_with_step_and_rows():
    with pytest.raises(NonFiniteLoss, match=r"'line'.*step 0 on rows"):
        list(Trainer(LineFamily(scale=float("inf")), config()).run())


def test_utilisation_is_the_share_of_a_matrix_products_speed():
    steps = list(Trainer(LineFamily(), config(log_every=20)).run())
    assert [step.step for step in steps if step.utilisation] == [1, 20, 40, 60]
    assert all(0 <= step.utilisation < 1 for step in steps)


def test_counting_operations_changes_no_weight():
    trainer = Trainer(LineFamily(), config())
    before = [p.detach().clone() for p in trainer.family.line.parameters()]
    # y = w x + b on 8 rows of 1 value: 2 x 8 forward, and 2 x 8 backward for the weight (none for the input)
    assert trainer._count_flops() == 32
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(before, trainer.family.line.parameters(), strict=True))
    assert all(p.grad is None for p in trainer.family.line.parameters())
