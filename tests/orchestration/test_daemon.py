"""A real daemon, code server and webserver on a small deployment: a sensor, a schedule and a backfill that run.

The sensor reads a shard that was lost, the schedule puts back the captions of champions that returned, the backfill
reads two shards again. None of them needs a training or a captioner. All three share one server.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.data.lake import Lake
from components.execution.ray_executor import start_head
from components.pipeline.rollback import roll_back
from tests.captioned_lake import captioned_lake, environment_of
from tests.dagster_api import LOCATION, ask
from tests.processes import wait_until
from tests.servers import dev_server

pytestmark = pytest.mark.servers
ENDS = ("SUCCESS", "FAILURE", "CANCELED")
START_SENSOR = """
mutation Start($selector: SensorSelector!) {
  startSensor(sensorSelector: $selector) { __typename ... on PythonError { message } }
}
"""
START_SCHEDULE = """
mutation Start($selector: ScheduleSelector!) {
  startSchedule(scheduleSelector: $selector) { __typename ... on PythonError { message } }
}
"""
BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}
"""
BACKFILL_STATUS = """
query Status($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
}
"""
RUNS = """
query Runs($tag: ExecutionTag!) {
  runsOrError(filter: {tags: [$tag]}) {
    ... on Runs { results { runId status jobName tags { key value } } }
  }
}
"""
MADE_IN = """
query Made($asset: AssetKeyInput!) {
  assetOrError(assetKey: $asset) {
    ... on Asset {
      assetMaterializations {
        runId partition
        metadataEntries { label ... on BoolMetadataEntry { boolValue } ... on TextMetadataEntry { text } }
      }
    }
  }
}
"""
STATES = """
query States($selector: RepositorySelector!) {
  sensorsOrError(repositorySelector: $selector) { ... on Sensors { results { name sensorState { status } } } }
  schedulesOrError(repositorySelector: $selector) { ... on Schedules { results { name scheduleState { status } } } }
}
"""


class Server:
    """The API behind the UI."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str, **variables: Any) -> Any:
        return ask(self.url, query, **variables)

    def runs(self, tag: str, value: str) -> list[dict[str, Any]]:
        """Runs with a tag, the first one first, their tags as a mapping."""
        found = self.ask(RUNS, tag={"key": tag, "value": value})["runsOrError"]["results"]
        return [{**run, "tags": {one["key"]: one["value"] for one in run["tags"]}} for run in reversed(found)]

    def shown(self, asset: str, run_id: str) -> dict[str, dict[str, Any]]:
        """By shard: the metadata that a run left with it."""
        made = self.ask(MADE_IN, asset={"path": [asset]})["assetOrError"]["assetMaterializations"]
        return {
            one["partition"]: {e["label"]: e.get("boolValue", e.get("text")) for e in one["metadataEntries"]}
            for one in made
            if one["runId"] == run_id
        }


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Champions have just returned, so that captions are due, and the last shard of raw_pairs is lost."""
    folder = tmp_path_factory.mktemp("deployment")
    ws = captioned_lake(folder)
    roll_back(ws, "champion_captioners", by="the test")
    shutil.rmtree(folder / "lake" / "raw_pairs" / "00002")
    return folder


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    """``atelier dev`` and a Ray head for its runs, stopped by Ctrl-C."""
    head = start_head(num_cpus=2, object_store_mb=128)
    added = {**environment_of(home), **head.environment, "ATELIER_RECAPTION_CRON": "* * * * *"}
    del added["ATELIER_HOME"]  # which ``dev_server`` gives
    try:
        with dev_server(home, "smoke", **added) as urls:
            yield Server(urls["dagster"])
    finally:
        head.stop()


@pytest.fixture(scope="module")
def backfill(server: Server) -> str:
    """What a person switches on in the UI, all at once; the id of the backfill."""
    states = server.ask(STATES, selector=LOCATION)
    is_on = {one["name"] for one in states["sensorsOrError"]["results"] if one["sensorState"]["status"] == "RUNNING"}
    is_on |= {s["name"] for s in states["schedulesOrError"]["results"] if s["scheduleState"]["status"] == "RUNNING"}
    assert is_on == {"source_shards", "dead_runs"}

    for query, selector in (
        (START_SENSOR, {**LOCATION, "sensorName": "changed_shards"}),
        (START_SCHEDULE, {**LOCATION, "scheduleName": "nightly_captions"}),
    ):
        (answer,) = server.ask(query, selector=selector).values()
        assert answer["__typename"] in ("Sensor", "ScheduleStateResult"), answer
    params = {
        "assetSelection": [{"path": ["raw_pairs"]}],
        "partitionNames": ["00000", "00001"],
        "runConfigData": {"resources": {"recipe": {"config": {"force": True}}}},
    }
    # The sensor registers the shards.
    wait_until(lambda: server.runs("dagster/sensor_name", "changed_shards"), "a run of the sensor", every=1)
    answer = server.ask(BACKFILL, params=params)["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    return answer["backfillId"]


def finished(server: Server, tag: str, value: str) -> dict[str, Any]:
    """The first run of a tag, once it has ended."""
    return wait_until(
        lambda: next((run for run in server.runs(tag, value)[:1] if run["status"] in ENDS), None),
        f"the end of a run with {tag}={value}",
        every=1,
    )


def span(run: dict[str, Any]) -> tuple[str, str]:
    return tuple(run["tags"][f"dagster/asset_partition_range_{end}"] for end in ("start", "end"))


def test_a_sensor_has_a_lost_shard_read(server: Server, backfill: str, home: Path) -> None:
    run = finished(server, "dagster/sensor_name", "changed_shards")
    assert (run["status"], run["jobName"], span(run)) == ("SUCCESS", "ingest", ("00002", "00002"))
    assert run["tags"]["atelier/why"] == "never made"
    record = Lake(str(home / "lake")).record("raw_pairs", "table", "00002")
    assert record is not None
    assert server.shown("raw_pairs", run["runId"])["00002"]["fingerprint"] == record.fingerprint


def test_a_schedule_has_the_champions_captions_put_back(server: Server, backfill: str, home: Path) -> None:
    run = finished(server, "dagster/schedule_name", "nightly_captions")
    assert (run["status"], run["jobName"], span(run)[0]) == ("SUCCESS", "recaption", "00000")
    assert run["tags"]["atelier/why"].startswith("written by scenes-smoke-ssc_captioner/2")
    record = Lake(str(home / "lake")).record("recaptioned", "table", "00000")
    assert record is not None
    assert record.metadata["dsc_captioner"] == "scenes-smoke-dsc_captioner/1"
    assert record.metadata["dsc_written"] == 0  # they were found again
    assert server.shown("recaptioned", run["runId"])["00000"]["dsc_captioner"] == "scenes-smoke-dsc_captioner/1"


def test_a_backfill_reads_two_shards_in_one_run(server: Server, backfill: str) -> None:
    def end() -> str | None:
        status = server.ask(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"]
        return status if status in ("COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED") else None

    assert wait_until(end, "the backfill's end", every=1) in ("COMPLETED", "COMPLETED_SUCCESS")
    (run,) = server.runs("dagster/backfill", backfill)
    assert (run["status"], span(run)) == ("SUCCESS", ("00000", "00001"))
    shown = server.shown("raw_pairs", run["runId"])
    assert [shown[shard]["reused"] for shard in ("00000", "00001")] == [False, False]
    assert shown["00000"]["fingerprint"] != shown["00001"]["fingerprint"]
