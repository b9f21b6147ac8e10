"""The ``atelier`` command in a process of its own, as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def environment_for(home: Path, **added: str) -> dict[str, str]:
    """This process's environment without any deployment's settings, and with ``home`` as the deployment's."""
    theirs = ("ATELIER", "DAGSTER", "MLFLOW", "RAY")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return kept | {"ATELIER_HOME": str(home), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"} | added


def atelier(*arguments: str) -> list[str]:
    """The command as a list of words."""
    return [sys.executable, "-m", "orchestration.cli", *arguments]


def run(arguments: list[str], home: Path, added: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:
    """Run the command to its end and keep what it says."""
    environment = environment_for(home, **(added or {}))
    return subprocess.run(atelier(*arguments), env=environment, capture_output=True, text=True, check=False)
