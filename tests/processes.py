"""Processes that tests start, kill and look for afterwards."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil


def processes_of(home: Path) -> list[psutil.Process]:
    """Living processes whose environment names this deployment: the command and all that it started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ATELIER_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition: Callable[[], object], what: str, seconds: float = 240.0) -> float:
    """Wait for something to become true; how many seconds it took. Fails saying what did not happen."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - started


def wait_for_end(home: Path, seconds: float = 60.0) -> float:
    """Wait until no process of a deployment is left; how many seconds it took. Fails naming those that are."""
    started = time.monotonic()
    while left := processes_of(home):
        if time.monotonic() - started > seconds:
            raise AssertionError(f"still there after {seconds:g} s: {[described(one) for one in left]}")
        time.sleep(0.1)
    return time.monotonic() - started


def described(process: psutil.Process) -> str:
    """A process in words, for failures."""
    try:
        return f"{process.pid} of {process.ppid()} ({process.status()}): {' '.join(process.cmdline())[:120]}"
    except psutil.Error:
        return f"{process.pid}, gone meanwhile"
