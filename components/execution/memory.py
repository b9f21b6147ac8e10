"""How much memory a process has held.

What belongs here: the measure. What does not: limits of memory (``components.data.picture_process``).
"""

import resource
from pathlib import Path

_STATUS = Path("/proc/self/status")


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
