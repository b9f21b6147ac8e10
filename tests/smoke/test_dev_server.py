"""``atelier dev`` on what the demo left: the Dagster UI's API materializes assets, MLflow shows the versions."""

import time

import pytest

from components.pipeline.graph import ORDER
from tests.servers import dev_server, get

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
ASSETS = "query Assets { assetNodes { assetKey { path } assetMaterializations(limit: 1) { runId } } }"
TICKS = """
query Ticks($selector: SensorSelector!) {
  sensorOrError(sensorSelector: $selector) {
    ... on Sensor { sensorState { ticks(limit: 1) { status skipReason error { message } } } }
  }
}
"""


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


def test_without_a_demo_the_graph_waits_to_be_materialized(tmp_path):
    with dev_server(tmp_path / "home", "smoke") as fresh:
        nodes = get(f"{fresh['dagster']}/graphql", {"query": ASSETS})["data"]["assetNodes"]
    assert {node["assetKey"]["path"][0] for node in nodes} == set(ORDER)
    assert not any(node["assetMaterializations"] for node in nodes)
