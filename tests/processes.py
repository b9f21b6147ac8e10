"""Processes that tests start, hold, kill and look for afterwards."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

Found = TypeVar("Found")
PATIENCE = 600.0  # seconds for anything on a starved machine; what takes longer hangs
HOLDING = Path(__file__).parent / "hold"


def processes_of(home: Path) -> list[psutil.Process]:
    """Living processes whose environment names this deployment: the command and all that it started.

    Ray's workers write their titles over theirs and are not found; they end with their raylet, which is.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ATELIER_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition: Callable[[], Found], what: str, seconds: float = PATIENCE, every: float = 0.1) -> Found:
    """Wait for a condition to give something that counts as true, and give it. Fails saying what did not happen."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(every)
    return found


def left_of(home: Path, seconds: float = 120.0) -> list[str]:
    """Processes of a deployment that has ended, in words: those that are still there after so long."""
    deadline = time.monotonic() + seconds
    while (left := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [described(one) for one in left]


def wait_for_end(home: Path) -> float:
    """Wait until no process of a deployment is left; how many seconds it took. Fails naming those that are."""
    started = time.monotonic()
    assert left_of(home) == []
    return time.monotonic() - started


def described(process: psutil.Process) -> str:
    """A process in words, for failures."""
    try:
        return f"{process.pid} of {process.ppid()} ({process.status()}): {' '.join(process.cmdline())[:120]}"
    except psutil.Error:
        return f"{process.pid}, gone meanwhile"


@dataclass(frozen=True)
class Hold:
    """Holds one process at a known place, so that it can be killed there: as it renames a file to one like ``files``.

    ``after`` so many of these files have been put in place before. All processes that are started with ``environment``
    look out for it, and for theirs; ``mark`` is a file that does not exist yet.
    """

    files: str
    after: int
    mark: Path

    @property
    def environment(self) -> Mapping[str, str]:
        path = os.pathsep.join(filter(None, [str(HOLDING), os.environ.get("PYTHONPATH")]))
        return {
            "PYTHONPATH": path,
            "HOLD_FILES": self.files,
            "HOLD_AFTER": str(self.after),
            "HOLD_MARK": str(self.mark),
        }

    def wait(self) -> psutil.Process:
        """The process, once it is held."""
        number = wait_until(lambda: self.mark.exists() and self.mark.read_text(), f"a process held at {self.files}")
        return psutil.Process(int(number))
