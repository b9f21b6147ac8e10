"""What work takes where it runs: CPU seconds, GPU seconds and peak memory, measured in each process and added up.

What belongs here: the measure. What does not: what it costs (``components.pipeline.costs``).

CPU seconds are those that were used, by all threads of a process and by the processes it has started. GPU seconds are
those for which a process held a GPU, computing or not, because nobody else could use it meanwhile.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .memory import peak_memory

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_RAYLET = "raylet"  # a private cluster below this process: its workers measure themselves


@dataclass(frozen=True, slots=True)
class Usage:
    """What some work took. ``process`` names the one process in which it ran; empty where it was several."""

    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    peak_memory_gib: float = 0.0  # of the largest process
    process: str = ""

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(
            self.cpu_seconds + other.cpu_seconds,
            self.gpu_seconds + other.gpu_seconds,
            max(self.peak_memory_gib, other.peak_memory_gib),
            self.process if self.process == other.process else "",
        )

    def with_workers(self, workers: Iterable[Usage]) -> Usage:
        """Of this process and its workers together: of a worker that was this very process only the peak is new."""
        total = self
        for worker in workers:
            is_here = worker.process == self.process
            total += Usage(peak_memory_gib=worker.peak_memory_gib) if is_here else worker
        return total


@dataclass(frozen=True, slots=True)
class Answer:
    """A worker's result for one item, what it took, and for how many seconds the worker was at it."""

    result: Any
    usage: Usage
    seconds: float


class Meter:
    """Measures this process from now on.

    ``num_gpus`` is what the work asked for: below 1 it is the share of a GPU that counts.
    """

    def __init__(self, num_gpus: float = 0.0) -> None:
        self.num_gpus = num_gpus
        self.restart()

    def restart(self) -> None:
        """Forget what has been measured."""
        self._cpu, self._wall = _cpu_seconds(), time.perf_counter()

    def read(self) -> Usage:
        """What this process has taken since the meter was made or restarted."""
        wall = time.perf_counter() - self._wall
        share = self.num_gpus if 0 < self.num_gpus < 1 else 1.0
        return Usage(
            cpu_seconds=max(0.0, _cpu_seconds() - self._cpu),
            gpu_seconds=wall * share * _held_gpus(),
            peak_memory_gib=peak_memory() / 2**30,
            process=f"{socket.gethostname()}:{os.getpid()}",
        )

    def lap(self) -> Usage:
        """Read and start again."""
        usage = self.read()
        self.restart()
        return usage


def metered(factory: Callable[[], Callable[[Any], Any]], num_gpus: float = 0.0) -> Callable[[], Callable[[Any], Any]]:
    """A factory for ``contracts.Executor.map`` whose results are :class:`Answer`.

    The first item carries what it took to build the work.
    """
    return partial(_metered_worker, factory, num_gpus)


def _metered_worker(factory: Callable[[], Callable[[Any], Any]], num_gpus: float) -> Callable[[Any], Any]:
    meter, started = Meter(num_gpus), time.perf_counter()
    work = factory()
    building = time.perf_counter() - started

    def measured(item: Any) -> Answer:
        nonlocal building
        started = time.perf_counter()
        result = work(item)
        seconds, building = time.perf_counter() - started + building, 0.0
        return Answer(result, meter.lap(), seconds)

    return measured


def _held_gpus() -> int:
    """GPUs on which this process holds memory."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return sum(torch.cuda.max_memory_allocated(device) > 0 for device in range(torch.cuda.device_count()))


def _cpu_seconds() -> float:
    """CPU seconds of this process and of what it has started, ended or not."""
    return time.process_time() + _reaped(os.getpid()) + sum(map(_tree, _children(os.getpid())))


def _tree(pid: int) -> float:
    """CPU seconds of a process, of its children that have ended and of those that have not."""
    name, *times = _stat(pid)
    if name == _RAYLET:
        return 0.0
    return sum(map(int, times)) / _TICKS + sum(map(_tree, _children(pid)))


def _reaped(pid: int) -> float:
    _, _, _, user, system = _stat(pid)
    return (int(user) + int(system)) / _TICKS


def _stat(pid: int) -> tuple[str, ...]:
    """Name, utime, stime, cutime and cstime of a process (proc_pid_stat(5)); zeros where it is gone or untold."""
    try:
        head, _, rest = (_PROC / str(pid) / "stat").read_text().rpartition(")")
    except OSError:
        return "", "0", "0", "0", "0"
    return head.partition("(")[2], *rest.split()[11:15]


def _children(pid: int) -> Iterator[int]:
    """Living children of a process; none where the system does not tell."""
    for task in _files(_PROC / str(pid) / "task"):
        try:
            yield from map(int, (task / "children").read_text().split())
        except OSError:  # the thread has ended meanwhile
            continue


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
