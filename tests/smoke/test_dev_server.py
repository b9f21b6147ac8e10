"""``atelier dev`` on what the demo left: the Dagster UI's API materializes assets, MLflow shows the versions."""

import pytest

from components.pipeline.graph import ORDER
from tests.dagster_api import LOCATION, ask
from tests.processes import wait_until
from tests.servers import dev_server, get

pytestmark = pytest.mark.smoke
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
    ... on Sensor { sensorState { ticks(limit: 2) { status skipReason error { message } } } }
  }
}
"""


@pytest.mark.parametrize(("asset", "partition"), [("recaptioned", "00001"), ("latent_diffusion", None)])
def test_an_asset_is_materialized_through_the_api_of_the_ui(urls, asset, partition):
    url = urls["dagster"]
    tags = [{"key": "dagster/partition", "value": partition}] if partition else []
    params = {
        "selector": {**LOCATION, "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": [asset]}]},
        "mode": "default",
        "runConfigData": {"resources": {"recipe": {"config": {"recipe": "smoke", "force": True}}}},
        "executionMetadata": {"tags": tags},
    }
    launched = ask(url, LAUNCH, params=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["id"]

    def end() -> str | None:
        status = ask(url, STATUS, id=run_id)["runOrError"]["status"]
        return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None

    assert wait_until(end, "the run's end", every=1) == "SUCCESS"
    (shown,) = ask(url, MATERIALIZATIONS, key={"path": [asset]})["assetOrError"]["assetMaterializations"]
    assert shown["runId"] == run_id
    assert shown["partition"] == partition
    assert {"uri", "fingerprint", "samples"} <= {entry["label"] for entry in shown["metadataEntries"]}


def test_mlflow_shows_the_registered_champion(urls):
    name = "scenes-smoke-latent_diffusion"
    found = get(f"{urls['mlflow']}/api/2.0/mlflow/registered-models/get?name={name}")["registered_model"]
    assert "champion" in {alias["alias"] for alias in found["aliases"]}


def test_the_daemon_runs_the_sensor_that_registers_shards(urls):
    selector = {**LOCATION, "sensorName": "source_shards"}

    def finished_tick() -> dict | None:
        ticks = ask(urls["dagster"], TICKS, selector=selector)["sensorOrError"]["sensorState"]["ticks"]
        return next((tick for tick in ticks if tick["status"] != "STARTED"), None)

    tick = wait_until(finished_tick, "a tick of the sensor", every=1)
    assert tick["error"] is None
    assert tick["skipReason"] == "no new shards"


def test_without_a_demo_the_graph_waits_to_be_materialized(tmp_path):
    with dev_server(tmp_path / "home", "smoke") as fresh:
        nodes = ask(fresh["dagster"], ASSETS)["assetNodes"]
    assert {node["assetKey"]["path"][0] for node in nodes} == set(ORDER)
    assert not any(node["assetMaterializations"] for node in nodes)
