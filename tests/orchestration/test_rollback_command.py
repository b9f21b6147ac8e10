"""``atelier rollback`` and the job ``rollback`` as their users meet them, and what Dagster shows as stale then."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from components.execution.local_executor import LocalExecutor
from components.pipeline.ingest import shard_names
from components.pipeline.withdrawals import rollbacks
from components.pipeline.workspace import Workspace
from orchestration.cli import main
from orchestration.definitions import build_definitions
from orchestration.partitions import range_tags, register_shards
from orchestration.resources import ComputeResource
from tests.captioned_lake import OVERRIDES, captioned_lake, environment_of


class HereResource(ComputeResource):
    """Work stays in this process."""

    def open(self) -> Any:
        return LocalExecutor()


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    for name, value in environment_of(tmp_path).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "dagster").mkdir()
    return captioned_lake(tmp_path)


@pytest.fixture
def instance(ws: Workspace) -> Iterator[dg.DagsterInstance]:
    """The deployment's Dagster, in which every shard and its parents were made."""
    with dg.DagsterInstance.get() as instance:
        register_shards(instance, shard_names(ws))
        for asset in ("image_set", "champion_captioners", "clip"):
            tags = {"dagster/data_version": ws.parent(asset).data_version}
            instance.report_runless_asset_event(dg.AssetMaterialization(asset, tags=tags))
        for job in ("ingest", "recaption"):
            assert run(instance, job, range_tags(shard_names(ws))).success
        yield instance


def run(instance: dg.DagsterInstance, job: str, tags: dict[str, str] | None = None, config: Any = None) -> Any:
    definitions = build_definitions({"compute": HereResource()})
    return definitions.resolve_job_def(job).execute_in_process(instance=instance, tags=tags or {}, run_config=config)


def stale(instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """By shard of ``recaptioned``: why it is stale."""
    graph = build_definitions().resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    key, found = dg.AssetKey("recaptioned"), {}
    for shard in instance.get_dynamic_partitions("shards"):
        causes = resolver.get_stale_causes(key, shard)
        assert (resolver.get_status(key, shard) is StaleStatus.STALE) == bool(causes)
        found[shard] = [f"{cause.dependency_asset_key.to_user_string()} {cause.reason}"
                        for cause in causes if cause.dependency_asset_key]  # fmt: skip
    return found


def test_captions_are_fresh_until_their_champions_are_rolled_back(ws: Workspace, instance: dg.DagsterInstance) -> None:
    assert stale(instance) == {shard: [] for shard in shard_names(ws)}
    config = {"ops": {"roll_champion_back": {"config": {"asset": "champion_captioners", "why": "it invents dogs"}}}}
    assert run(instance, "rollback", config=config).success
    expected = ["champion_captioners has a new dependency data version"]
    assert stale(instance) == dict.fromkeys(shard_names(ws), expected)
    event = instance.get_latest_materialization_event(dg.AssetKey("champion_captioners"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["champion"].value == "ssc/1,dsc/1"
    assert "it invents dogs" in str(event.asset_materialization.description)
    assert run(instance, "recaption", range_tags(shard_names(ws))).success
    assert stale(instance) == {shard: [] for shard in shard_names(ws)}


def test_the_command_says_what_it_did_and_how_to_undo_it(ws: Workspace, instance: dg.DagsterInstance, capsys) -> None:
    overrides = [word for name, value in OVERRIDES.items() for word in ("--set", f"{name}={value}")]
    target = ["--dataset", "scenes", "--recipe", "smoke", *overrides]
    why = ["--why", "red\x1b[31m dogs", "--by", "Ada"]
    assert main(["rollback", "champion_captioners", *target, *why]) == 0
    said = capsys.readouterr().out
    assert "champion_captioners: ssc/1,dsc/1 is champion again" in said
    assert "ssc/2,dsc/2 was rolled back to ssc/1,dsc/1 by Ada on 20" in said
    assert "atelier rollback champion_captioners --to ssc/2,dsc/2" in said
    assert "\x1b" not in said
    assert [one.by for one in rollbacks(ws.lake)] == ["Ada"]
    assert all(reasons for reasons in stale(instance).values())
    assert main(["rollback", "champion_captioners", *target, "--to", "ssc/7,dsc/7"]) == 1
    assert "has no version 'ssc/7,dsc/7'; on record are ssc/1,dsc/1, ssc/2,dsc/2" in capsys.readouterr().err


def test_the_launchpad_offers_only_what_has_champions() -> None:
    job = build_definitions().resolve_job_def("rollback")
    typo = {"ops": {"roll_champion_back": {"config": {"asset": "recaptioned"}}}}
    with pytest.raises(dg.DagsterInvalidConfigError, match="recaptioned"):
        job.execute_in_process(run_config=typo)
