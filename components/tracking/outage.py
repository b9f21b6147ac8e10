"""A tracking server that is away for a while: calls wait for it, and what a training notes waits in this process.

What belongs here: how long is waited, and what is said. What does not: MLflow; its tracker says which errors mean that
nobody answers.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from components.addresses import without_credentials

logger = logging.getLogger(__name__)

DEFAULT_PATIENCE = 300.0
MAX_WAITING = 5000
"""Notes of one run that are kept while the server is away; the oldest go first."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


class TrackerAway(RuntimeError):
    """The tracking server did not answer for as long as is waited; the message names it, the cause and the remedy."""


def patience() -> float:
    """Seconds for which an absent server is waited for: ``ATELIER_TRACKING_PATIENCE``."""
    return float(os.environ.get("ATELIER_TRACKING_PATIENCE") or DEFAULT_PATIENCE)


class Outage:
    """What is known of one server's absence; shared by everything in this process that talks to it.

    Patience is counted from the first call that was not answered, so that many calls together wait no longer than one.
    """

    def __init__(self, uri: str, is_away: Callable[[Exception], bool]) -> None:
        self.shown = without_credentials(uri)
        self._secret = urlsplit(uri).netloc.rpartition("@")[0]
        self.is_away = is_away
        self.seconds = patience()
        self._since: float | None = None

    def begins(self, error: Exception) -> None:
        """A call was not answered."""
        if self._since is None:
            self._since = time.monotonic()
            logger.warning(
                "the tracking server %s does not answer (%s): waiting up to %g s",
                self.shown,
                self.cause(error),
                self.seconds,
            )

    def ends(self) -> None:
        """A call was answered."""
        if self._since is not None:
            logger.warning("the tracking server %s is back after %.0f s", self.shown, time.monotonic() - self._since)
        self._since = None

    def lasts_too_long(self) -> bool:
        """Whether nobody should wait any more."""
        return self._since is not None and time.monotonic() - self._since >= self.seconds

    def error(self, cause: Exception) -> TrackerAway:
        """What is raised then."""
        return TrackerAway(
            f"the tracking server {self.shown} does not answer ({self.cause(cause)}); {self.seconds:g} s were waited. "
            "Check it and MLFLOW_TRACKING_URI, then run the same command again: what is finished is kept in the lake, "
            "and a model that is trained is only registered. ATELIER_TRACKING_PATIENCE sets the seconds"
        )

    def cause(self, error: Exception) -> str:
        """The first line of a failure, short (clients put whole requests into theirs) and without credentials."""
        first = (str(error).splitlines() or [""])[0]
        safe = without_credentials(first.replace(f"{self._secret}@", "") if self._secret else first)
        return f"{type(error).__name__}: {safe[:200]}"

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Within the block no longer than ``seconds`` is waited."""
        before, self.seconds = self.seconds, min(seconds, self.seconds)
        try:
            yield
        finally:
            self.seconds = before


class PatientClient:
    """A client whose calls are repeated, with growing pauses, while the server is away.

    A call whose answer was lost is done again: at worst a run or version is made twice, and nobody points at the first.
    """

    def __init__(self, client: Any, outage: Outage) -> None:
        self._client = client
        self._outage = outage

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            pauses = _pauses()
            while True:
                try:
                    answer = method(*arguments, **options)
                except Exception as error:
                    if not self._outage.is_away(error):
                        raise
                    self._outage.begins(error)
                    if self._outage.lasts_too_long():
                        raise self._outage.error(error) from None  # its own words may hold a password
                    time.sleep(min(next(pauses), self._outage.seconds))
                else:
                    self._outage.ends()
                    return answer

        return call


class Backlog:
    """What a run notes, in order: told at once, or kept while the server is away and told later.

    No training fails for a note: it waits for one no longer than for one call, and not again before a pause has passed;
    what the server refuses is lost with a warning.
    """

    def __init__(self, outage: Outage) -> None:
        self._outage = outage
        self._waiting: deque[Callable[[], Any]] = deque()
        self._num_lost = 0
        self._not_before = 0.0
        self._pauses = _pauses()

    def add(self, note: Callable[[], Any]) -> None:
        """Tell the server, now or later."""
        if len(self._waiting) == MAX_WAITING:
            self._waiting.popleft()
            self._num_lost += 1
        self._waiting.append(note)
        if time.monotonic() >= self._not_before:
            self._tell()

    def flush(self) -> int:
        """Wait until everything is told, as long as the outage's patience lasts; how many notes are lost in all."""
        while self._waiting and not self._tell():
            if self._outage.lasts_too_long():
                logger.warning(
                    "%d notes of a training are not in the tracking server %s; the lake's record has its losses",
                    len(self._waiting),
                    self._outage.shown,
                )
                self._num_lost += len(self._waiting)
                self._waiting.clear()
            else:
                time.sleep(max(0.0, self._not_before - time.monotonic()))
        return self._num_lost

    def _tell(self) -> bool:
        """Tell the notes that wait, the oldest first; whether none is left."""
        while self._waiting:
            try:
                self._waiting[0]()
            except Exception as error:
                if self._outage.is_away(error):
                    self._outage.begins(error)
                    self._not_before = time.monotonic() + next(self._pauses)
                    return False
                cause = self._outage.cause(error)
                logger.warning("a note of a training was refused by %s: %s", self._outage.shown, cause)
                self._num_lost += 1
            self._waiting.popleft()
        self._outage.ends()
        self._pauses = _pauses()
        return True


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)
