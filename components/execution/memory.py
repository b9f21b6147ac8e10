"""How much memory a process has held, and forgetting it before the next piece of work.

What belongs here: the measure. What does not: limits of memory (``components.data.picture_process``).
"""

import resource
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def peak_memory() -> int:
    """Highest resident memory of this process so far, in bytes.

    Where the system tells it (Linux), it is that of the program alone: ``getrusage`` also counts what the process held
    that started it.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak_memory() -> None:
    """Let :func:`peak_memory` count from now on, where the system can (Linux: proc_pid_clear_refs(5))."""
    with suppress(OSError):
        _CLEAR_REFS.write_text("5")
