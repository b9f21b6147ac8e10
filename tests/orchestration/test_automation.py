"""Ticks over a small lake: what they ask for, when they ask for nothing, and the words for it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from components.data.catalog import Dataset
from components.pipeline.ingest import shard_names
from components.pipeline.rollback import roll_back
from orchestration.automation import NIGHTLY, automation_of
from orchestration.checks import CHECKS
from orchestration.definitions import build_definitions
from orchestration.partitions import ranges_of, register_shards
from tests.captioned_lake import captioned_lake, environment_of, open_scenes, read_shards, write_captions

RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment that the definitions of this process open."""
    for name, value in environment_of(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.fixture
def kept_instance() -> Iterator[dg.DagsterInstance]:
    """A schedule's context takes an instance from its storage alone."""
    with dg.instance_for_test() as instance:
        yield instance


def tick(instance: dg.DagsterInstance, name: str, cursor: str | None = None) -> Any:
    repository = build_definitions().get_repository_def()
    resources = repository.get_top_level_resources()
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources, sensor_name=name) as context:
        return repository.get_sensor_def(name).evaluate_tick(context)


def night(instance: dg.DagsterInstance, day: int = 1) -> Any:
    repository = build_definitions().get_repository_def()
    with dg.build_schedule_context(
        instance=instance,
        resources=repository.get_top_level_resources(),
        scheduled_execution_time=datetime(2026, 5, day, 2, tzinfo=UTC),
    ) as context:
        return repository.get_schedule_def("nightly_captions").evaluate_tick(context)


def ranges(asked: Any) -> list[tuple[str, ...]]:
    return [tuple(request.tags[name] for name in RANGE) for request in asked.run_requests]


def test_all_that_starts_runs_is_off_until_one_switch() -> None:
    def running(environment: dict[str, str]) -> set[str]:
        found = automation_of(environment)
        return {one.name for one in (*found["sensors"], *found["schedules"]) if one.default_status.value == "RUNNING"}

    assert running({}) == running({"ATELIER_AUTOMATION": "0"}) == {"source_shards", "dead_runs"}
    everything = {"source_shards", "dead_runs", "changed_shards", "new_champions", "manifests", "nightly_captions"}
    assert running({"ATELIER_AUTOMATION": "1"}) == everything
    (schedule,) = automation_of({})["schedules"]
    assert schedule.cron_schedule == NIGHTLY
    (schedule,) = automation_of({"ATELIER_RECAPTION_CRON": "*/5 * * * *"})["schedules"]
    assert schedule.cron_schedule == "*/5 * * * *"


def test_ranges_follow_the_order_of_registration() -> None:
    assert ranges_of(["a", "b", "c", "d"], {"a", "b", "d"}) == [["a", "b"], ["d"]]
    assert ranges_of(["d", "a", "c"], {"a", "c", "d"}) == [["d", "a", "c"]]
    assert ranges_of(["a"], {"z"}) == []


def test_shards_that_were_never_made_are_read_in_as_few_runs_as_ranges(home: Path, instance) -> None:
    read_shards(open_scenes(home), "00001")
    asked = tick(instance, "changed_shards")
    assert ranges(asked) == [("00000", "00000"), ("00002", "00002")]
    first = asked.run_requests[0]
    assert (first.job_name, first.tags["atelier/why"]) == ("ingest", "never made")
    assert list(instance.get_dynamic_partitions("shards")) == ["00000", "00001", "00002"]
    assert [one.run_key for one in tick(instance, "changed_shards").run_requests] == [
        one.run_key for one in asked.run_requests
    ]
    read_shards(open_scenes(home))
    assert tick(instance, "changed_shards").skip_message == "every shard is as its source is"


def test_a_tick_opens_the_source_once(home: Path, instance, monkeypatch) -> None:
    opened = []
    reader_of = Dataset.reader
    monkeypatch.setattr(Dataset, "reader", lambda self, *limits: opened.append(1) or reader_of(self, *limits))
    for name in ("source_shards", "changed_shards"):
        opened.clear()
        tick(instance, name)
        assert opened == [1]


def test_a_shard_that_failed_is_not_asked_for_again_and_the_tick_says_so(home: Path, instance) -> None:
    key = tick(instance, "changed_shards").run_requests[0].run_key
    failed = dg.DagsterRun(job_name="ingest", status=dg.DagsterRunStatus.FAILURE, tags={"dagster/run_key": key})
    instance.add_run(failed)
    asked = tick(instance, "changed_shards")
    assert not asked.run_requests
    assert f"00000 to 00002 in run {failed.run_id[:8]}, which ended as FAILURE" in asked.skip_message


def test_nothing_is_asked_for_while_a_run_makes_it(home: Path, instance) -> None:
    ws = captioned_lake(home)
    register_shards(instance, shard_names(ws))
    roll_back(ws, "champion_captioners", by="me")
    at_work = dg.DagsterRun(job_name="recaption", status=dg.DagsterRunStatus.STARTED)
    instance.add_run(at_work)
    asked = tick(instance, "new_champions", cursor="ssc/2,dsc/2")
    assert not asked.run_requests
    assert "3 shards are due, but run" in asked.skip_message
    assert asked.cursor in (None, "ssc/2,dsc/2")  # asked again at the next tick
    instance.delete_run(at_work.run_id)
    assert ranges(tick(instance, "new_champions", cursor="ssc/2,dsc/2")) == [("00000", "00002")]


def test_without_captioners_there_is_nothing_to_ask_for(home: Path, instance, kept_instance) -> None:
    read_shards(open_scenes(home))
    for asked in (tick(instance, "new_champions"), night(kept_instance)):
        assert not asked.run_requests
        assert "champion_captioners has not been materialized" in asked.skip_message


def test_new_champions_have_every_shard_captioned_once(home: Path, instance) -> None:
    ws = captioned_lake(home)
    register_shards(instance, shard_names(ws))
    asked = tick(instance, "new_champions")
    assert (asked.skip_message, asked.cursor) == ("every shard has captions by ssc/2,dsc/2", "ssc/2,dsc/2")
    assert tick(instance, "new_champions", asked.cursor).skip_message == "the champions are still ssc/2,dsc/2"
    roll_back(ws, "champion_captioners", by="me")
    asked = tick(instance, "new_champions", asked.cursor)
    assert ranges(asked) == [("00000", "00002")]
    assert asked.cursor == "ssc/1,dsc/1"
    why = "written by scenes-smoke-ssc_captioner/2 and scenes-smoke-dsc_captioner/2 (3)"
    assert asked.run_requests[0].tags["atelier/why"] == why


def test_champions_that_come_and_go_have_their_captions_asked_for_every_time(home: Path, instance) -> None:
    ws = captioned_lake(home)
    register_shards(instance, shard_names(ws))
    cursor = "ssc/2,dsc/2"
    for to in ("ssc/1,dsc/1", "ssc/2,dsc/2") * 2:
        roll_back(ws, "champion_captioners", to, by="me")
        asked = tick(instance, "new_champions", cursor)
        assert ranges(asked) == [("00000", "00002")], asked.skip_message
        tags = {"dagster/run_key": str(asked.run_requests[0].run_key)}
        instance.add_run(dg.DagsterRun(job_name="recaption", status=dg.DagsterRunStatus.SUCCESS, tags=tags))
        write_captions(ws)
        cursor = asked.cursor


def test_the_night_asks_for_what_is_due_and_again_the_next_night(home: Path, kept_instance) -> None:
    instance = kept_instance
    ws = captioned_lake(home)
    register_shards(instance, shard_names(ws))
    assert "every shard has captions" in night(instance).skip_message
    roll_back(ws, "champion_captioners", by="me")
    (first,) = night(instance).run_requests
    assert (first.job_name, *(first.tags[name] for name in RANGE)) == ("recaption", "00000", "00002")
    instance.add_run(
        dg.DagsterRun(
            job_name="recaption", status=dg.DagsterRunStatus.FAILURE, tags={"dagster/run_key": str(first.run_key)}
        )
    )
    assert not night(instance).run_requests
    (second,) = night(instance, day=2).run_requests
    assert first.run_key != second.run_key


# ------------------------------------------------------------------------------------------------ parents that change
def report(instance: dg.DagsterInstance, asset: str, version: str, partition: str | None = None) -> None:
    """An asset was made, and passed its checks."""
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset, partition=partition, tags={"dagster/data_version": version})
    )
    for check in CHECKS.get(asset, ()):
        answer = dg.AssetCheckEvaluation(dg.AssetKey(asset), check.name, passed=True, metadata={})
        instance.report_runless_asset_event(answer)


def requested(instance: dg.DagsterInstance, cursor: Any = None) -> tuple[set[str], Any]:
    target = dg.AssetSelection.assets("image_set", "training_set")
    found = dg.evaluate_automation_conditions(build_definitions(), instance, asset_selection=target, cursor=cursor)
    names = ("image_set", "training_set")
    return {name for name in names if found.get_num_requested(dg.AssetKey(name))}, found.cursor


def test_manifests_follow_their_shards_and_wait_for_captions(home: Path, instance) -> None:
    register_shards(instance, ["00000", "00001"])
    nothing, cursor = requested(instance)
    assert nothing == set()
    report(instance, "raw_pairs", "1", "00000")
    assert requested(instance, cursor)[0] == set()  # a shard is missing
    report(instance, "raw_pairs", "1", "00001")
    asked, cursor = requested(instance, cursor)
    assert asked == {"image_set"}
    report(instance, "image_set", "1")
    for asset in ("champion_captioners", "clip"):
        report(instance, asset, "1")
    asked, cursor = requested(instance, cursor)
    assert asked == set()  # no captions yet
    for shard in ("00000", "00001"):
        report(instance, "recaptioned", "1", shard)
    asked, cursor = requested(instance, cursor)
    assert asked == {"training_set"}
    report(instance, "training_set", "1")
    assert requested(instance, cursor)[0] == set()


def test_a_manifest_of_captions_waits_while_captions_are_older_than_their_rows(home: Path, instance) -> None:
    register_shards(instance, ["00000"])
    for asset in ("champion_captioners", "clip", "image_set"):
        report(instance, asset, "1")
    for asset in ("raw_pairs", "recaptioned"):
        report(instance, asset, "1", "00000")
    report(instance, "training_set", "1")
    _, cursor = requested(instance)
    report(instance, "raw_pairs", "2", "00000")
    asked, cursor = requested(instance, cursor)
    assert asked == {"image_set"}
    report(instance, "image_set", "2")
    asked, cursor = requested(instance, cursor)
    assert asked == set()
    report(instance, "recaptioned", "2", "00000")
    assert requested(instance, cursor)[0] == {"training_set"}


LIGHT = """
import sys
import dagster as dg
from orchestration.definitions import defs
instance, repository = dg.DagsterInstance.ephemeral(), defs.get_repository_def()
for name in ("source_shards", "changed_shards", "new_champions"):
    resources = repository.get_top_level_resources()
    with dg.build_sensor_context(instance=instance, resources=resources, sensor_name=name) as context:
        print(name, repository.get_sensor_def(name).evaluate_tick(context).skip_message)
print([name for name in ("torch", "ray", "mlflow", "transformers", "diffusers") if name in sys.modules])
"""


def test_a_tick_imports_nothing_that_trains(home: Path) -> None:
    captioned_lake(home)
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False, env=os.environ)
    assert done.stdout.splitlines() == [
        "source_shards registered 3 new shards",
        "changed_shards every shard is as its source is",
        "new_champions every shard has captions by ssc/2,dsc/2",
        "[]",
    ], done.stderr[-2000:]
