"""Which device work runs on, and which number format it computes fast in.

What belongs here: facts of the hardware. What does not: whether a training wants them (``training.config``).
"""

from __future__ import annotations

import functools
import shutil
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def best_device() -> str:
    """``cuda`` where this process may use a GPU (Ray shows a worker only those that it asked for), else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@functools.cache
def device_for(num_gpus: float) -> str:
    """Where a process trains that was given so many GPUs: ``cuda`` where it has one and was given a share of it."""
    return best_device() if num_gpus else "cpu"


def has_cpu_compiler() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs on CPUs."""
    return any(map(shutil.which, ("c++", "g++", "clang++")))


def peak_flops(device: str, dtype: torch.dtype, num_threads: int) -> float:
    """Floating-point operations per second of a large matrix product, as measured here: the best of five.

    ``num_threads`` is the number of CPU threads that torch uses now; it is asked for because the figure depends on it.
    """
    import torch

    side = 1024 if device == "cpu" else 8192
    left, right = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        (left @ right)[0, 0].item()  # reading a value waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def fast_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """bfloat16 on a GPU and on a CPU with instructions for it; float32 on CPUs that would emulate it."""
    import torch

    if torch.device(device).type != "cpu":
        return torch.bfloat16
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
