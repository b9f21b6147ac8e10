"""What the graph costs: every job run by Dagster over the same stage functions called directly, in one process."""

import os
import time
from pathlib import Path

import dagster as dg

from components.execution.ray_executor import RayExecutor
from components.pipeline.graph import make
from orchestration.jobs import JOBS
from orchestration.launch import Target, run_job

from .measurement import Ratio, open_bench_workspace

NUM_ROUNDS = 3


def graph_over_direct_calls(folder: Path) -> Ratio:
    """Wall seconds of the smoke graph, job after job, both ways in turn, after a round that only warms up."""
    ours, reference = [], []
    with RayExecutor("local", num_cpus=2) as executor:
        warm = open_bench_workspace(folder / "warm", executor)
        for asset in (asset for job in JOBS for asset in job.assets):
            make(warm, asset)
        for number in range(NUM_ROUNDS):
            ws = open_bench_workspace(folder / f"direct{number}", executor)
            started = time.perf_counter()
            for asset in (asset for job in JOBS for asset in job.assets):
                make(ws, asset)
            reference.append(time.perf_counter() - started)
            ours.append(_through_dagster(folder / f"graph{number}"))
    return Ratio.of(
        "graph / stage functions called directly",
        ours,
        reference,
        "seconds",
        "at most 1.10",
        "recipe smoke, all jobs in turn in one process, Ray started before",
    )


def _through_dagster(home: Path) -> float:
    os.environ["ATELIER_HOME"] = str(home)
    target = Target("scenes", "smoke")
    target.home.prepare()
    os.environ["DAGSTER_HOME"] = str(target.home.dagster_home)
    from components.tracking import open_tracker

    open_tracker(target.home.tracking_uri, target.home.artifacts).prepare()
    with dg.DagsterInstance.get():
        pass  # migrate the storage before the clock starts, as `atelier demo` leaves it
    started = time.perf_counter()
    for job in JOBS:
        if not run_job(target, job.name):
            raise RuntimeError(f"job {job.name} failed; its reason stands above")
    return time.perf_counter() - started
