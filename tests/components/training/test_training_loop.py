"""Training is exact: order and randomness depend on (seed, step, row) alone, and a stopped training goes on."""

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.contracts import Gang, Loss, Preview
from components.data.lake import Lake
from components.data.storage import StorageError
from components.training.checkpoint import Checkpoints
from components.training.compiling import NoCompiler
from components.training.config import TrainingConfig
from components.training.loop import NonFiniteLoss, Trainer
from components.training.prefetch import Prefetch
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
    stopped = Trainer(LineFamily(), settings, checkpoints=Checkpoints(Lake(str(tmp_path)), "line"))
    for step in stopped.run():
        if step.step == 47:
            break
    resumed = Trainer(LineFamily(), settings, checkpoints=Checkpoints(Lake(str(tmp_path)), "line"))
    steps = [step.step for step in resumed.run()]
    assert steps[0] == 41
    for ours, theirs in zip(weights(resumed), weights(undisturbed), strict=True):
        assert torch.equal(ours, theirs)


def test_a_step_whose_caller_was_stopped_comes_again(tmp_path):
    checkpoints = Checkpoints(Lake(str(tmp_path)), "line")
    for step in Trainer(LineFamily(), config(checkpoint_every=20), checkpoints=checkpoints).run():
        if step.step == 40:
            break  # in the middle of what the caller does after a step, for example drawing samples
    resumed = Trainer(LineFamily(), config(checkpoint_every=20), checkpoints=checkpoints)
    assert next(resumed.run()).step == 21


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


class DropoutFamily(LineFamily):
    """The same line, of which dropout hides a part."""

    def loss(self, batch, rng):
        hidden = torch.nn.functional.dropout(self.line(batch["x"]), 0.5)
        return Loss((hidden - batch["y"]).square().mean())


def test_dropout_is_the_same_after_a_stop(tmp_path):
    undisturbed = Trainer(DropoutFamily(), config())
    list(undisturbed.run())
    checkpoints = Checkpoints(Lake(str(tmp_path)), "line")
    for step in Trainer(DropoutFamily(), config(checkpoint_every=20), checkpoints=checkpoints).run():
        if step.step == 25:
            break
    torch.rand(7)  # whatever else draws from the process's generator
    resumed = Trainer(DropoutFamily(), config(checkpoint_every=20), checkpoints=checkpoints)
    assert [step.step for step in resumed.run()] == list(range(21, 61))
    for ours, theirs in zip(weights(resumed), weights(undisturbed), strict=True):
        assert torch.equal(ours, theirs)


def test_only_the_newest_checkpoints_are_kept_and_a_damaged_one_is_passed_over(tmp_path):
    checkpoints = Checkpoints(Lake(str(tmp_path)), "line", num_kept=2)
    list(Trainer(LineFamily(), config(checkpoint_every=10), checkpoints=checkpoints).run())
    assert checkpoints.steps() == [40, 50]
    newest = tmp_path / "line" / "step-000000050.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    state = checkpoints.load()
    assert state is not None
    assert state["step"] == 40
    checkpoints.clear()
    assert checkpoints.load() is None


def test_behind_a_damaged_checkpoint_new_ones_are_kept(tmp_path):
    checkpoints = Checkpoints(Lake(str(tmp_path)), "line")
    checkpoints.write_note("step-000005000.pt", b"cut short")
    assert checkpoints.load() is None
    checkpoints.save(10, {"step": 10})
    assert checkpoints.steps() == [10]
    assert checkpoints.load() == {"step": 10}


def test_a_storage_that_does_not_answer_is_not_taken_for_a_damaged_checkpoint(tmp_path, monkeypatch):
    lake = Lake(str(tmp_path))
    checkpoints = Checkpoints(lake, "line")
    checkpoints.save(10, {"step": 10})

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(lake.fs, "open", fail)
    with pytest.raises(StorageError, match=r"step-000000010\.pt cannot be read: ConnectionError"):
        checkpoints.load()


def test_a_checkpoint_that_would_run_code_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    checkpoints = Checkpoints(Lake(str(tmp_path)), "line")
    checkpoints.write_note("step-000000010.pt", b"")
    torch.save({"step": Evil()}, tmp_path / "line" / "step-000000010.pt")
    assert checkpoints.load() is None
    assert not (tmp_path / "ran").exists()


def test_batches_made_ahead_in_a_thread_are_the_same():
    trainer = Trainer(LineFamily(), config())
    with Prefetch(trainer._batches, is_threaded=True) as ahead:
        for step in (0, 1, 2, 7, 8):
            (ours,), (theirs,) = ahead.of(step), trainer._batches(step)
            assert torch.equal(ours.values["x"], theirs.values["x"])
            assert torch.equal(ours.values["y"], theirs.values["y"])


def test_settled_nothing_is_being_made():
    goes_on, makes = threading.Event(), []

    def make(step: int) -> int:
        if step:
            goes_on.wait(60)
        makes.append(step)
        return step

    with Prefetch(make, is_threaded=True) as ahead:
        ahead.of(0)
        threading.Timer(0.2, goes_on.set).start()
        ahead.settle()
        assert makes == [0, 1]
    ahead.settle()


def test_an_error_in_a_batch_made_ahead_arrives():
    def make(step: int) -> int:
        if step == 1:
            raise ValueError("row 3 is broken")
        return step

    with Prefetch(make, is_threaded=True) as ahead:
        assert ahead.of(0) == 0
        with pytest.raises(ValueError, match="row 3 is broken"):
            ahead.of(1)


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")
def test_a_compiled_training_resumes_exactly_and_shows_its_averages_uncompiled(tmp_path):
    settings = config(compile=True, checkpoint_every=20)
    undisturbed = Trainer(LineFamily(), config(compile=True))
    steps = list(undisturbed.run())
    assert undisturbed.family.line._compiled_call_impl is not None
    assert steps[-1].scalars["line/loss"] == pytest.approx(
        list(Trainer(LineFamily(), config()).run())[-1].scalars["line/loss"], rel=1e-3
    )
    checkpoints = Checkpoints(Lake(str(tmp_path)), "line")
    for step in Trainer(LineFamily(), settings, checkpoints=checkpoints).run():
        if step.step == 47:
            break
    resumed = Trainer(LineFamily(), settings, checkpoints=checkpoints)
    list(resumed.run())
    for ours, theirs in zip(weights(resumed), weights(undisturbed), strict=True):
        assert torch.equal(ours, theirs)


def test_without_a_compiler_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(NoCompiler, match=r"install g\+\+, or set the training's compile to false"):
        Trainer(LineFamily(), config(compile=True))


def test_settings_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="min_workers 4 is more than num_workers 2"):
        config(num_workers=2, min_workers=4)
    with pytest.raises(ValueError, match="compile=true and sharding='full'"):
        config(compile=True, sharding="full")
    with pytest.raises(ValueError, match="needs build"):
        Trainer(LineFamily(), config(sharding="full"), gang=Gang(0, 2))
