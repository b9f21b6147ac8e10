"""Python loads this at the start of every process that has the folder on its path: it can hold one at a known place.

The place is the first renaming to a file like ``HOLD_FILES`` (a pattern) after ``HOLD_AFTER`` of them. The one process
that is held writes its number to ``HOLD_MARK`` and waits there until it is killed; once that file exists all go on.
"""

import os
import sys
import threading
from fnmatch import fnmatch


def _hold(files: str, after: int, mark: str) -> None:
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event != "os.rename" or not fnmatch(os.fsdecode(arguments[1]), files):
            return
        seen += 1
        if seen == after + 1:
            try:
                descriptor = os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                return
            os.write(descriptor, str(os.getpid()).encode())
            threading.Event().wait()

    sys.addaudithook(hook)


if "HOLD_MARK" in os.environ:
    _hold(os.environ["HOLD_FILES"], int(os.environ["HOLD_AFTER"]), os.environ["HOLD_MARK"])
