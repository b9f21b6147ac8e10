"""Which code made a report. What does not belong here: which data did (records hold their inputs)."""

import subprocess
from pathlib import Path


def git_commit() -> str | None:
    """The checkout's commit, or None outside of one."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None
