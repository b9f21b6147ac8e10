"""Launching named jobs from the command line: one in this process, or many side by side in processes of their own.

What belongs here: run configuration, partition ranges, the scheduling of the named jobs, progress in the terminal. What
does not: what a job does.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TextIO

import dagster as dg

from components.execution import lifeline

from .home import Home
from .jobs import BY_NAME, NamedJob
from .liveness import end_dead_runs
from .partitions import range_tags, register_shards

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """What a command works on: a data set, a recipe with overrides, and whether nothing may be reused."""

    dataset: str
    recipe: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    is_forced: bool = False

    @property
    def home(self) -> Home:
        """Where the deployment keeps its things."""
        return Home(self.dataset, self.recipe)

    def arguments(self) -> list[str]:
        """The target as command-line arguments."""
        pairs = [word for name, value in self.overrides.items() for word in ("--set", f"{name}={value}")]
        return ["--dataset", self.dataset, "--recipe", self.recipe, *pairs, *(["--force"] if self.is_forced else [])]

    def run_config(self) -> dict:
        """Run configuration of the recipe resource, with Dagster's own console quiet."""
        config = {
            "dataset": self.dataset,
            "recipe": self.recipe,
            "overrides": dict(self.overrides),
            "force": self.is_forced,
        }
        return {
            "resources": {"recipe": {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        }


def run_job(target: Target, name: str, partition: str | None = None) -> bool:
    """Run one job in this process against the deployment's Dagster instance; whether it succeeded.

    A sharded job runs over all shards of the source as one range, any other partitioned job over one partition.
    """
    from .definitions import build_definitions

    job = BY_NAME[name]
    definitions = build_definitions()
    with dg.DagsterInstance.get() as instance:
        end_dead_runs(instance)
        tags = _shard_range(target, instance) if job.is_sharded else {}
        result = definitions.resolve_job_def(name).execute_in_process(
            instance=instance,
            run_config=target.run_config(),
            tags=tags,
            partition_key=partition or job.partition,
            raise_on_error=False,
        )
        for evaluation in result.get_asset_check_evaluations():
            if not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR:
                asset, said = evaluation.asset_key.to_user_string(), evaluation.description
                log.error("%s: check %s failed: %s", asset, evaluation.check_name, said)
        for event in result.all_events:
            failure = event.event_specific_data if event.is_step_failure else None
            if failure is not None:
                log.error("%s failed: %s", event.step_key, _reason(failure))
        return result.success


def _reason(failure: object) -> str:
    """The last cause of a step failure, which is the one that a person can act on."""
    metadata = getattr(failure, "user_failure_data", None)
    if metadata is not None and metadata.description:
        return metadata.description
    error = getattr(failure, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else str(failure)


def _shard_range(target: Target, instance: dg.DagsterInstance) -> dict[str, str]:
    from components.data.catalog import load_dataset
    from components.pipeline.ingest import names_of, open_reader
    from components.recipes import load_recipe

    names = names_of(open_reader(load_dataset(target.dataset), load_recipe(target.recipe, target.overrides)))
    register_shards(instance, names)
    return range_tags(names)


def run_jobs(
    target: Target,
    jobs: Sequence[NamedJob],
    *,
    side_by_side: int = 2,
    environment: Mapping[str, str] | None = None,
) -> dict[str, bool]:
    """Run jobs in processes of their own as soon as what they wait for has succeeded; by label, whether each succeeded.

    Jobs whose parents failed are left out of the result. ``environment`` is added to the processes' own. A job whose
    process was killed from outside is started once more, and makes what is missing; the processes end with this one.
    """
    waiting = list(jobs)
    crashed: set[str] = set()
    running: dict[str, subprocess.Popen] = {}
    done: dict[str, bool] = {}
    lock = threading.Lock()

    def is_ready(job: NamedJob) -> bool:
        parents = [other.label for other in jobs if other.name in job.after]
        return all(done.get(label) for label in parents)

    try:
        while waiting or running:
            ready = [job for job in waiting if is_ready(job)]
            for job in ready[: side_by_side - len(running)]:
                waiting.remove(job)
                log_mode = "a" if job.label in crashed else "w"
                running[job.label] = _start(target, job, lock, environment or {}, log_mode)
            if not running:
                break
            finished = next((label for label, process in running.items() if process.poll() is not None), None)
            if finished is None:
                time.sleep(0.2)
                continue
            status = running.pop(finished).returncode
            if _is_crash(status) and finished not in crashed:
                crashed.add(finished)
                _tell(finished, f"killed by {signal.Signals(-status).name}: started once more", lock)
                waiting.insert(0, next(job for job in jobs if job.label == finished))
                continue
            done[finished] = status == 0
    finally:
        for process in running.values():  # an interrupted command must not leave its jobs at work
            process.terminate()
        for process in running.values():
            process.wait()
    return done


def _is_crash(status: int) -> bool:
    """Whether a process was ended by a signal that nobody sends to ask for an end."""
    return status < 0 and -status not in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _start(
    target: Target, job: NamedJob, lock: threading.Lock, added: Mapping[str, str], log_mode: str
) -> subprocess.Popen:
    """Start one job; its lines go to the terminal under the job's name, all of its output to a log file."""
    environment = {**os.environ, **added, "OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1"}
    environment.setdefault("OMP_NUM_THREADS", "1")
    partition = ["--partition", job.partition] if job.partition else []
    process = lifeline.start(
        "orchestration.cli",
        ["run", job.name, *partition, *target.arguments()],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    path = target.home.logs / f"{job.label.replace(' ', '-')}.log"
    assert process.stdout is not None
    threading.Thread(
        target=_follow, args=(process.stdout, path.open(log_mode, encoding="utf-8"), job.label, lock), daemon=True
    ).start()
    return process


def _follow(stream: TextIO, file: TextIO, name: str, lock: threading.Lock) -> None:
    with file:
        for line in stream:
            file.write(line)
            file.flush()
            if line.startswith(MARK):
                _tell(name, line[len(MARK) :].rstrip("\n"), lock)


def _tell(name: str, text: str, lock: threading.Lock) -> None:
    with lock:
        sys.stdout.write(f"[{name:11s}] {text}\n")
        sys.stdout.flush()


MARK = "» "  # begins the lines that a person at the terminal should see


def log_to_terminal() -> None:
    """Send Atelier's own log lines, marked, to standard output, and warnings of everything else to standard error."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(f"{MARK}%(message)s"))
    for name in ("components", "orchestration"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        logger.propagate = False
