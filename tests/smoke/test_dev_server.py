"""``atelier dev`` on what the demo left: the Dagster UI's API materializes assets, MLflow shows the versions."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import atelier, environment_for

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(600)]
LOCATION = {"repositoryLocationName": "orchestration.definitions", "repositoryName": "__repository__"}
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { id } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
STATUS = "query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
MATERIALIZATIONS = """
query Asset($key: AssetKeyInput!) {
  assetOrError(assetKey: $key) {
    ... on Asset { assetMaterializations(limit: 1) { runId partition metadataEntries { label } } }
  }
}
"""


TICKS = """
query Ticks($selector: SensorSelector!) {
  sensorOrError(sensorSelector: $selector) {
    ... on Sensor { sensorState { ticks(limit: 1) { status skipReason error { message } } } }
  }
}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


@pytest.fixture(scope="module")
def urls(home: Path) -> Iterator[dict[str, str]]:
    """Addresses of the two servers, started together and stopped by Ctrl-C."""
    found = {name: f"http://127.0.0.1:{free_port()}" for name in ("dagster", "mlflow")}
    added = {f"ATELIER_{name.upper()}_URL": url for name, url in found.items()}
    server = subprocess.Popen(
        atelier("dev", "--recipe", "smoke"), env=environment_for(home, **added),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        for url in (f"{found['dagster']}/server_info", f"{found['mlflow']}/version"):
            _wait_for(url, server)
        yield found
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            raise


def _wait_for(url: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 180
    while True:
        assert server.poll() is None, server.stderr.read().decode()[-2000:] if server.stderr else ""
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.5)


@pytest.mark.parametrize(("asset", "partition"), [("recaptioned", "00001"), ("latent_diffusion", None)])
def test_an_asset_is_materialized_through_the_api_of_the_ui(urls, asset, partition):
    graphql = f"{urls['dagster']}/graphql"
    tags = [{"key": "dagster/partition", "value": partition}] if partition else []
    params = {
        "selector": {**LOCATION, "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": [asset]}]},
        "mode": "default",
        "runConfigData": {"resources": {"recipe": {"config": {"recipe": "smoke", "force": True}}}},
        "executionMetadata": {"tags": tags},
    }
    launched = get(graphql, {"query": LAUNCH, "variables": {"params": params}})["data"]["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["id"]
    status, deadline = "", time.monotonic() + 300
    while status not in ("SUCCESS", "FAILURE", "CANCELED"):
        assert time.monotonic() < deadline, status
        time.sleep(1)
        answer = get(graphql, {"query": STATUS, "variables": {"id": run_id}})
        status = answer["data"]["runOrError"]["status"]
    assert status == "SUCCESS"
    answer = get(graphql, {"query": MATERIALIZATIONS, "variables": {"key": {"path": [asset]}}})
    (shown,) = answer["data"]["assetOrError"]["assetMaterializations"]
    assert shown["runId"] == run_id
    assert shown["partition"] == partition
    assert {"uri", "fingerprint", "samples"} <= {entry["label"] for entry in shown["metadataEntries"]}


def test_mlflow_shows_the_registered_champion(urls):
    name = "scenes-smoke-latent_diffusion"
    found = get(f"{urls['mlflow']}/api/2.0/mlflow/registered-models/get?name={name}")["registered_model"]
    assert "champion" in {alias["alias"] for alias in found["aliases"]}


def test_the_daemon_runs_the_sensor_that_registers_shards(urls):
    selector = {**LOCATION, "sensorName": "source_shards"}
    deadline = time.monotonic() + 120
    while True:
        answer = get(f"{urls['dagster']}/graphql", {"query": TICKS, "variables": {"selector": selector}})
        if ticks := answer["data"]["sensorOrError"]["sensorState"]["ticks"]:
            break
        assert time.monotonic() < deadline, "the sensor never ticked"
        time.sleep(1)
    assert ticks[0]["error"] is None
    assert ticks[0]["skipReason"] == "no new shards"
