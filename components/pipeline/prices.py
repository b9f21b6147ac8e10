"""What an hour of a CPU and of a GPU costs in this deployment.

What belongs here: the prices. What does not: what was used (``execution.usage``) and whose cost it is (``costs``).
Prices are a fact of the deployment, as addresses are: they stand in the environment and in no recipe, so that another
price makes nothing again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

CPU_HOUR, GPU_HOUR = "ATELIER_CPU_HOUR_PRICE", "ATELIER_GPU_HOUR_PRICE"
DEFAULTS = {CPU_HOUR: 0.05, GPU_HOUR: 3.0}  # what clouds ask for, by order of magnitude


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of an hour, in whatever currency they are given."""

    cpu_hour: float
    gpu_hour: float

    @classmethod
    def here(cls) -> Prices:
        """``ATELIER_CPU_HOUR_PRICE`` and ``ATELIER_GPU_HOUR_PRICE``, or defaults; ValueError naming a wrong one."""
        return cls(_price(CPU_HOUR), _price(GPU_HOUR))

    def cost(self, cpu_seconds: float, gpu_seconds: float) -> float:
        """What these seconds cost."""
        return (cpu_seconds * self.cpu_hour + gpu_seconds * self.gpu_hour) / 3600


def _price(variable: str) -> float:
    text = os.environ.get(variable) or str(DEFAULTS[variable])
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < float("inf"):
        raise ValueError(f"{variable}={text!r} is not a price: give what an hour costs as a number, for example 0.05")
    return price
