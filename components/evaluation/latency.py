"""How fast pictures come.

What belongs here: measuring a callable. What does not: choosing batch size, steps or device; the caller states those.
"""

import time
from collections.abc import Callable
from statistics import median

from .intervals import Figure


def images_per_second(
    produce: Callable[[], object], num_images: int, *, num_warmups: int = 1, num_repeats: int = 6
) -> Figure:
    """Pictures per second of ``produce()``, which makes ``num_images`` pictures and returns once they are on the host.

    The median of ``num_repeats`` timed calls after ``num_warmups`` untimed ones. With at least six repeats the slowest
    and the fastest call bound the median's 95 % interval (an order statistic: 1 - 2 x 0.5^6 = 96.9 %); with fewer there
    is none. ``num_samples`` is the number of pictures timed.
    """
    if num_images < 1 or num_repeats < 1:
        raise ValueError(f"num_images={num_images}, num_repeats={num_repeats}: both must be at least 1")
    for _ in range(num_warmups):
        produce()
    seconds = []
    for _ in range(num_repeats):
        started = time.perf_counter()
        produce()
        seconds.append(time.perf_counter() - started)
    bounds = (num_images / max(seconds), num_images / min(seconds)) if num_repeats >= 6 else None
    return Figure(num_images / median(seconds), bounds, num_images * num_repeats)
