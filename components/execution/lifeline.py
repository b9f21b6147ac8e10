"""Processes that end when the process that started them is gone, however that went.

What belongs here: the line between a process and those that it starts. What does not: what any of them does.

A process that is killed hard cannot end its children, so they watch: the starter holds the writing end of a pipe, which
the kernel closes with it, and the reading end is their standard input.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

GRACE_SECONDS = 20.0


def start(module: str, arguments: Sequence[str], **options: Any) -> subprocess.Popen:
    """``python -m module arguments`` as a process that ends with this one; ``options`` are those of ``Popen``.

    When this process is gone the other gets SIGTERM (with its whole group, where it leads one), and SIGKILL after
    ``GRACE_SECONDS``. The line is the process's ``stdin``, which must stay open as long as it shall live.
    """
    command = [sys.executable, "-m", "components.execution.lifeline", module, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, **options)


def watch(fd: int = 0, grace_seconds: float = GRACE_SECONDS) -> None:
    """End this process when the other end of ``fd`` is closed; returns at once."""
    threading.Thread(target=_end_after, args=(fd, grace_seconds), name="lifeline", daemon=True).start()


def _end_after(fd: int, grace_seconds: float) -> None:
    while os.read(fd, 4096):
        pass
    leads_group = os.getpgrp() == os.getpid()
    for means in (signal.SIGTERM, signal.SIGKILL):
        if leads_group:
            os.killpg(0, means)
        else:
            os.kill(os.getpid(), means)
        threading.Event().wait(grace_seconds)  # the process ends meanwhile, and this thread with it


def main() -> None:
    """Run a module as ``python -m`` would, on a lifeline."""
    module = sys.argv.pop(1)
    watch()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
