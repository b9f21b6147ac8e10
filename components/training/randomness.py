"""Order and randomness as functions of (seed, step, row): never of worker count, batch order or restarts.

What belongs here: the permutation of rows and the per-row draws. What does not: any distribution that a family shapes
from them (timesteps, caption choice), which stays in that family's objective.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch


def rows_at(step: int, *, batch_size: int, num_rows: int, seed: int) -> np.ndarray:
    """Row numbers of one global batch, int64 (batch_size,).

    Epochs are independent permutations laid end to end, so that a batch may span two of them and no row is dropped.
    """
    first = step * batch_size
    pieces = []
    while batch_size > 0:
        epoch, offset = divmod(first, num_rows)
        piece = _order_of(seed, epoch, num_rows)[offset : offset + batch_size]
        pieces.append(piece)
        first += len(piece)
        batch_size -= len(piece)
    return np.concatenate(pieces)


@lru_cache(maxsize=2)
def _order_of(seed: int, epoch: int, num_rows: int) -> np.ndarray:
    """The permutation of one epoch; kept, because a step needs a batch of it and drawing it costs all rows."""
    return np.random.default_rng([seed, epoch]).permutation(num_rows)


class SeededRandom:
    """The :class:`components.contracts.StepRandom` of one batch: one torch generator, seeded anew for each row.

    A row's draw depends on (seed, step, row, stream) alone, so two workers with half of the batch each see what one
    worker with all of it sees.
    """

    def __init__(self, seed: int, step: int, rows: np.ndarray, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.step = step
        self.rows = rows
        self.device = torch.device(device)
        self._generator = torch.Generator()

    def normal(self, stream: str, shape: Sequence[int]) -> torch.Tensor:
        """Standard normal float32 (B, *shape)."""
        return self._draw(stream, shape, lambda out: out.normal_(generator=self._generator))

    def uniform(self, stream: str, shape: Sequence[int] = ()) -> torch.Tensor:
        """Uniform float32 in [0, 1), (B, *shape)."""
        return self._draw(stream, shape, lambda out: out.uniform_(generator=self._generator))

    def _draw(self, stream: str, shape: Sequence[int], fill: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        drawn = torch.empty(len(self.rows), *shape)  # (B, *shape)
        for position, row in enumerate(self.rows):
            self._generator.manual_seed(seed_of(self.seed, self.step, int(row), stream))
            fill(drawn[position])
        return moved(drawn, self.device)


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on a device; the way from the CPU to a GPU waits for nothing that the GPU still does."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def seed_of(seed: int, step: int, row: int, stream: str) -> int:
    """The seed of one draw, 63 bits."""
    text = f"{seed}/{step}/{row}/{stream}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
