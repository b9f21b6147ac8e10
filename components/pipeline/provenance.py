"""Which code made a report. What does not belong here: which data did (records hold their inputs)."""

import os
import subprocess
from pathlib import Path

VARIABLE = "ATELIER_COMMIT"
"""Environment variable with the commit, for an image: it holds neither git nor the repository."""


def git_commit() -> str | None:
    """``ATELIER_COMMIT``, or the checkout's commit; None where there is neither a checkout nor git."""
    if commit := os.environ.get(VARIABLE):
        return commit
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None
