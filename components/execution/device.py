"""Which device work runs on, and which number format it computes fast in.

What belongs here: facts of the hardware. What does not: whether a training wants them (``training.config``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def best_device() -> str:
    """``cuda`` where this process may use a GPU (Ray shows a worker only those that it asked for), else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def fast_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """bfloat16 on a GPU and on a CPU with instructions for it; float32 on CPUs that would emulate it."""
    import torch

    if torch.device(device).type != "cpu":
        return torch.bfloat16
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
