"""Work in the calling process.

What belongs here: the executor without a cluster, and what one machine has to offer. What does not: Ray.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from components.contracts import RIGID, Elasticity, Gang, InsufficientResources, Resources

logger = logging.getLogger(__name__)


class LocalExecutor:
    """Implements ``contracts.Executor`` in this process, with one worker."""

    def map(
        self,
        factory: Callable[[], Callable[[Any], Any]],
        items: Sequence[Any],
        *,
        resources: Resources,
        max_workers: int | None = None,
    ) -> Iterator[Any]:
        """Results of ``factory()(item)`` in the order of ``items``, computed as they are asked for.

        ``max_workers`` is accepted and changes nothing: there is one worker. Raises ``InsufficientResources`` at the
        call where this machine is smaller than one worker.
        """
        require_here(resources)
        return self._stream(factory, items)

    def fit(
        self,
        function: Callable[[Gang, Mapping[str, Any]], Mapping[str, Any]],
        config: Mapping[str, Any],
        *,
        num_workers: int,
        resources: Resources,
        elasticity: Elasticity = RIGID,
    ) -> Mapping[str, Any]:
        """``function(Gang(0, 1), config)``, with ``resources.num_cpus`` torch threads and no process group.

        Raises ``InsufficientResources`` where ``elasticity`` allows no single worker, or where this machine is smaller
        than it.
        """
        if 1 not in (num_workers, *elasticity.sizes):
            raise InsufficientResources(
                f"a gang of {num_workers} workers needs Ray, and this executor runs one worker in its own process: "
                "use RayExecutor, or set num_workers to 1"
            )
        require_here(resources)
        with torch_threads(resources):
            return function(Gang(), config)

    def _stream(self, factory: Callable[[], Callable[[Any], Any]], items: Sequence[Any]) -> Iterator[Any]:
        if items:
            work = factory()
            for item in items:
                yield work(item)


def require_here(resources: Resources) -> None:
    """Raise ``InsufficientResources`` where this machine is smaller than one worker."""
    num_cpus = available_cpus()
    if resources.num_cpus > num_cpus:
        raise InsufficientResources(
            f"one worker asks for {resources.num_cpus:g} CPUs and this machine has {num_cpus}: lower the recipe's "
            "num_cpus, or name a Ray cluster with RAY_ADDRESS"
        )
    if resources.num_gpus:
        import torch

        num_gpus = torch.cuda.device_count()
        if resources.num_gpus > num_gpus:
            raise InsufficientResources(
                f"one worker asks for {resources.num_gpus:g} GPUs and this machine has {num_gpus}: lower the "
                "recipe's num_gpus, or name a Ray cluster with RAY_ADDRESS"
            )


def available_cpus() -> int:
    """CPUs that this process may use (its affinity where the system tells it)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def torch_threads(resources: Resources) -> Iterator[None]:
    """Within the block torch computes with ``max(1, int(num_cpus))`` threads; sums depend on their number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, int(resources.num_cpus)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
