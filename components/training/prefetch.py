"""The next step's batches, made ready while the device works on this one's.

What belongs here: looking one step ahead. What does not: what a batch holds.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, Self, TypeVar

Batch = TypeVar("Batch")


class Prefetch(Generic[Batch]):
    """``make(step)`` for steps that follow each other; in a thread of its own where the device is not this CPU.

    ``make`` must be a function of the step alone, so that looking ahead changes nothing.
    """

    def __init__(self, make: Callable[[int], Batch], *, is_threaded: bool) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch") if is_threaded else None
        self._ahead: tuple[int, Future[Batch]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._ahead = None
            self._pool.shutdown(cancel_futures=True)

    def settle(self) -> None:
        """Wait until nothing is being made: what ``make`` uses may then be used by others until the next ``of``."""
        if self._ahead is not None:
            wait([self._ahead[1]])

    def of(self, step: int) -> Batch:
        """The batch of ``step``; the one after it begins to be made."""
        if self._pool is None:
            return self._make(step)
        ahead, self._ahead = self._ahead, None
        batch = ahead[1].result() if ahead and ahead[0] == step else self._make(step)
        self._ahead = (step + 1, self._pool.submit(self._make, step + 1))
        return batch
