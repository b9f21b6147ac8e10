"""Runs as Ray jobs on a cluster of two nodes, with the launcher of ``deploy/ray_jobs.yaml``.

Each node has one CPU, so that two workers of one CPU each cannot be on one node. The whole graph takes minutes:
``make chaos`` runs it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from components.data.lake import Lake
from components.pipeline.graph import ORDER
from components.pipeline.ingest import build_image_set
from components.pipeline.workspace import kind_of
from orchestration.jobs import BY_NAME, JOBS
from orchestration.partitions import register_shards
from tests.command_line import environment_for
from tests.deploy.files import DEPLOY, ROOT
from tests.processes import left_of, wait_until
from tests.ray_nodes import Nodes, ray_nodes
from tests.workspaces import scenes_workspace

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]
RUN_SECONDS = 1200
SHARDS = ("00000", "00001")
AT_ONCE = {"module": "dagster.core.run_coordinator", "class": "DefaultRunCoordinator"}  # no daemon empties a queue here


@dataclass(frozen=True)
class Cluster:
    """Two nodes, and a deployment whose runs are sent to them."""

    nodes: Nodes
    home: Path
    environment: Mapping[str, str]
    instance: dg.DagsterInstance

    @property
    def lake(self) -> Lake:
        return Lake(str(self.home / "lake"))

    def run(self, job: str, overrides: Mapping[str, str] | None = None) -> dg.DagsterRun:
        """Launch a job as a user would, and wait until its run has ended."""
        named, tags = BY_NAME[job], {}
        if named.is_sharded:
            ends = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
            tags = dict(zip(ends, SHARDS, strict=True))
        if named.partition:
            tags["dagster/partition"] = named.partition
        recipe = {"dataset": "scenes", "recipe": "smoke", "overrides": dict(overrides or {})}
        config = {"resources": {"recipe": {"config": recipe}}}
        command = [sys.executable, "-m", "dagster", "job", "launch", "-m", "orchestration.definitions", "-j", job]
        command += ["--tags", json.dumps(tags), "--config-json", json.dumps(config)]
        done = subprocess.run(
            command, env=dict(self.environment), cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (run,) = self.instance.get_runs(limit=1)
        return wait_until(lambda: self._ended(run.run_id), f"the end of {job}", RUN_SECONDS)

    def _ended(self, run_id: str) -> dg.DagsterRun | None:
        run = self.instance.get_run_by_id(run_id)
        return run if run is not None and run.is_finished else None

    def reasons(self, run: dg.DagsterRun) -> str:
        """What failed, for a test's message."""
        failures = [entry.dagster_event for entry in self.instance.all_logs(run.run_id) if entry.is_dagster_event]
        return "\n".join(str(each.event_specific_data) for each in failures if each and each.is_failure)[:4000]

    def status_of_job(self, run: dg.DagsterRun) -> str:
        """How a run's Ray job has ended, which it does a while after the run."""
        deadline = time.monotonic() + RUN_SECONDS
        while (status := self.ask(f"/api/jobs/dagster-run-{run.run_id}")["status"]) in ("PENDING", "RUNNING"):
            assert time.monotonic() < deadline, f"the Ray job of {run.run_id} has not ended in {RUN_SECONDS} s"
            time.sleep(0.5)
        return status

    def ask(self, path: str) -> Any:
        """An answer of the cluster's state API."""
        headers = {"Authorization": f"Bearer {self.nodes.environment['RAY_AUTH_TOKEN']}"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.nodes.dashboard}{path}", headers=headers)) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("two-nodes")
    folder = home / "dagster"
    folder.mkdir()
    environment = environment_for(
        home, DAGSTER_HOME=str(folder), ATELIER_DATASET="scenes", ATELIER_RECIPE="smoke", PYTHONPATH=str(ROOT)
    )
    settings = yaml.safe_load((DEPLOY / "ray_jobs.yaml").read_text())
    (folder / "dagster.yaml").write_text(
        yaml.safe_dump(settings | {"telemetry": {"enabled": False}, "run_coordinator": AT_ONCE})
    )
    with ray_nodes([1, 1], environment) as nodes, pytest.MonkeyPatch.context() as here:
        own = {**environment, **nodes.environment, "ATELIER_RAY_JOBS_URL": nodes.dashboard}
        here.setenv("ATELIER_RAY_JOBS_URL", nodes.dashboard)
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            register_shards(instance, list(SHARDS))
            yield Cluster(nodes, home, own, instance)
    assert left_of(home) == []
    assert not nodes.folder.exists()


def test_shards_are_read_on_both_nodes_and_a_gang_trains_across_them(cluster: Cluster) -> None:
    alive = [node for node in cluster.ask("/api/v0/nodes")["data"]["result"]["result"] if node["state"] == "ALIVE"]
    assert [node["resources_total"]["CPU"] for node in alive] == [1, 1]
    with urllib.request.urlopen(f"{cluster.nodes.dashboard}/api/gcs_healthz") as answer:
        assert answer.status == 200  # as compose.yaml's check of the head asks, without the token
    for job, overrides in (("ingest", {}), ("autoencoder", {"vae.training.num_workers": "2"})):
        if job == "autoencoder":
            build_image_set(scenes_workspace(cluster.home, {}))  # not worth a Ray job here
        run = cluster.run(job, overrides)
        assert run.status == dg.DagsterRunStatus.SUCCESS, cluster.reasons(run)
        assert cluster.status_of_job(run) == "SUCCEEDED"
    assert set(cluster.lake.records("raw_pairs")) == set(SHARDS)
    vae = cluster.lake.record("vae", "model")
    assert vae is not None
    assert vae.registry == "scenes-smoke-vae/1"
    actors = cluster.ask("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
    for what in ("TrainWorker", "MapWorker"):
        assert len({actor["node_id"] for actor in actors if what in actor["class_name"]}) == 2, actors


def test_the_whole_graph_as_ray_jobs(cluster: Cluster) -> None:
    """Every job of the graph in order, the diffusion model with a gang over both nodes; prints what each took."""
    for job in JOBS:
        started = time.monotonic()
        run = cluster.run(job.name, {"latent_diffusion.training.num_workers": "2"})
        assert run.status == dg.DagsterRunStatus.SUCCESS, f"{job.name}: {cluster.reasons(run)}"
        sys.stderr.write(f"{job.name}: {time.monotonic() - started:.0f} s with launching\n")
    for asset in ORDER:
        kind = kind_of(asset)
        shard = "raw-seed0" if asset == "caption_blend_study" else SHARDS[1] if kind == "table" else None
        assert cluster.lake.record(asset, kind, shard), asset
    report = cluster.lake.read_json("reports/evaluation_report/latest/report.json")
    assert report["verdict"]
    assert report["cost"]["latent_diffusion"] > 0
