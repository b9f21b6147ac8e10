"""Runs whose process is gone: a run holds a file lock while it lives, and the kernel lets go of it in any case.

What belongs here: holding the lock, finding runs that lost theirs, the sensor that does so. What does not: ending
processes (``components.execution.lifeline``) and launching runs again (Dagster's run retries do).

Dagster's default launcher cannot tell whether a run of a code server that is gone, or of ``atelier demo``, is still
alive: killed with its server, such a run would stay "started" for ever and keep its place in the queue and its pools.
Where runs are Ray jobs, Dagster's own monitoring finds dead ones through the launcher. The sensor sees no lock there,
because it ticks in another container than the head's: each run that starts looks around instead, and clears up.
"""

import fcntl
import logging
import os
from pathlib import Path
from typing import IO

import dagster as dg

log = logging.getLogger(__name__)

_held: dict[str, IO[str]] = {}  # by run; never closed, because a run is told as finished after its resources end


def _locks() -> Path | None:
    """The folder of the locks, beside the instance that knows the runs; None where there is no lasting instance."""
    home = os.environ.get("DAGSTER_HOME")
    return Path(home) / "running" if home else None


def hold(run_id: str) -> None:
    """Tell others that this process works on a run, until the process ends."""
    folder = _locks()
    if folder is None or run_id in _held:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path, partial = folder / run_id, folder / f".{run_id}.{os.getpid()}"
    file = partial.open("w")
    fcntl.flock(file, fcntl.LOCK_SH)  # steps of a run may have processes of their own
    try:
        path.hardlink_to(partial)  # nobody sees the file before it is locked
    except FileExistsError:
        file = path.open()
        fcntl.flock(file, fcntl.LOCK_SH)
    finally:
        partial.unlink()
    _held[run_id] = file


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose lock lies here and is held by nobody; their ids.

    A run without a lock here lives on another machine, or is so young that it has none: it is left alone.
    """
    folder = _locks()
    if folder is None or not folder.is_dir():
        return []
    dead = []
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".") and _is_free(path)):
        run = instance.get_run_by_id(path.name)
        if run is not None and not run.is_finished:
            message = (
                "The process of this run is gone without a word: killed, out of memory, or the machine went down. What "
                "it finished is kept; the next run makes the rest."
            )
            log.warning("run %s of %s: %s", run.run_id, run.job_name, message)
            instance.report_run_failed(run, message)
            dead.append(run.run_id)
        path.unlink(missing_ok=True)
    return dead


def _is_free(path: Path) -> bool:
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):  # it lives, or somebody else has found it
        return False
    return True


@dg.sensor(
    name="dead_runs",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks runs as failed whose process is gone, so that they hold up nobody; it starts no run.",
)
def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Find runs without a process."""
    ended = end_dead_runs(context.instance)
    return dg.SkipReason(f"marked as failed: {', '.join(ended)}" if ended else "every run has its process")
