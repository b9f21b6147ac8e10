"""Losses over a gang of two processes against the same batch in one: values, and gradients after averaging."""

import multiprocessing
from pathlib import Path

import torch
from torch import distributed

from components.diffusion.gathering import gathered, share_of_all
from tests.processes import PATIENCE

ROWS = torch.arange(24, dtype=torch.float32).reshape(8, 3) / 7
COUNTED = torch.tensor([1, 0, 0, 0, 1, 1, 1, 0], dtype=torch.bool)  # one of the first four rows, three of the others
Losses = tuple[torch.Tensor, torch.Tensor]


def contrast(rows: torch.Tensor) -> torch.Tensor:
    """A loss in which every row meets every other, computed whole by each worker."""
    everything = gathered(rows)
    return (everything @ everything.T).square().mean()


def counted_mean(rows: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """The mean over some of the rows."""
    count = counted.sum()
    return (rows.square().sum(dim=1) * counted).sum() / count.clamp(min=1) * share_of_all(count)


def both(rows: torch.Tensor, counted: torch.Tensor) -> tuple[Losses, Losses]:
    """Each loss with its gradient in a weight that scales all rows."""
    found = []
    for loss_of in (contrast, lambda scaled: counted_mean(scaled, counted)):
        weight = torch.ones((), requires_grad=True)
        loss = loss_of(rows * weight)
        loss.backward()
        found.append((loss.detach(), weight.grad))
    return found[0], found[1]


def work(rank: int, store: str, queue: multiprocessing.Queue) -> None:
    """One of two workers, with half of the rows; rank 0 says what both average to."""
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    half = slice(4 * rank, 4 * rank + 4)
    averaged = torch.stack([torch.stack(pair) for pair in both(ROWS[half], COUNTED[half])])
    distributed.all_reduce(averaged)
    if rank == 0:
        queue.put((averaged / 2).tolist())
    distributed.destroy_process_group()


def test_two_workers_average_to_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=work, args=(rank, str(tmp_path / "store"), queue)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    averaged = torch.tensor(queue.get(timeout=PATIENCE))
    for worker in workers:
        worker.join()
    alone = torch.stack([torch.stack(pair) for pair in both(ROWS, COUNTED)])
    assert torch.allclose(averaged, alone, rtol=1e-6)


def test_without_a_gang_nothing_changes() -> None:
    assert gathered(ROWS) is ROWS
    assert share_of_all(torch.tensor(3)) == 1
    assert share_of_all(torch.tensor(0)) == 0
