"""Progress of long work: a line every few seconds with rate and time left, through the ordinary logging.

The same lines stand in the terminal and, because the loggers below ``components`` are managed, in the Dagster run.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
EVERY_SECONDS = 5.0


class Progress:
    """Counts finished units of one stage and logs how it goes."""

    def __init__(self, log: logging.Logger, stage: str, total: int, unit: str) -> None:
        self._log, self._stage, self._total, self._unit = log, stage, total, unit
        self._started = self._spoke = time.perf_counter()
        self._first: int | None = None

    def update(self, done: int, note: str = "") -> None:
        """Say where the stage stands, at most every few seconds and once at its end."""
        now = time.perf_counter()
        if self._first is None:
            self._first = done  # work done before this process (a resumed training) is no evidence of speed
        if done < self._total and now - self._spoke < EVERY_SECONDS:
            return
        self._spoke = now
        rate = (done - self._first) / max(now - self._started, 1e-9)
        left = (self._total - done) / rate if rate else float("inf")
        self._log.info(
            "%s: %d/%d %s, %.1f/s, %s left%s",
            self._stage,
            done,
            self._total,
            self._unit,
            rate,
            clock(left),
            f", {note}" if note else "",
        )


def tracked(items: Iterable[T], log: logging.Logger, stage: str, total: int, unit: str) -> Iterator[T]:
    """The items, with progress logged as they pass."""
    progress = Progress(log, stage, total, unit)
    progress.update(0)
    for done, item in enumerate(items, start=1):
        yield item
        progress.update(done)


def clock(seconds: float) -> str:
    """Seconds for people: ``42s``, ``3m05s``."""
    if seconds == float("inf"):
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def silence_libraries() -> None:
    """Turn off the progress bars of loading and saving, and advice that nobody who runs a job can act on.

    The loop says how far it is; errors stay.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
