"""The server form of a deployment: Dagster on PostgreSQL, MLflow on a server with PostgreSQL and S3 behind it."""

import os
from pathlib import Path

import dagster as dg
import pytest
import yaml

from components.data.lake import Lake
from components.tracking import open_tracker
from orchestration.home import LAPTOP, POSTGRES, SERVER, Home
from orchestration.launch import Target, run_job
from tests.s3 import file_system

REPOSITORY = Path(__file__).parents[2]
SMALL = {"data.max_shards": "2", "data.max_rows_per_shard": "64", "vae.training.num_steps": "4"}


def test_the_file_that_containers_take_is_the_one_that_a_home_is_given() -> None:
    assert (REPOSITORY / "deploy" / "dagster.yaml").read_text() == SERVER


@pytest.mark.parametrize("form", [LAPTOP, SERVER])
def test_both_forms_set_queue_pools_monitoring_retries_and_retention(form: str, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(form.partition("storage:")[0])
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert instance.run_retries_max_retries == 1
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert type(instance.run_coordinator).__name__ == "QueuedRunCoordinator"
        concurrency = instance.get_concurrency_config()
        assert concurrency.pool_config.default_pool_limit in (1, 2)
    assert set(yaml.safe_load(form)["retention"]) == {"schedule", "sensor"}


def test_a_home_gets_the_form_that_fits_and_keeps_a_file_of_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    home, file = Home("scenes", "smoke"), tmp_path / "dagster" / "dagster.yaml"
    home.prepare()
    assert file.read_text() == LAPTOP
    monkeypatch.setenv(POSTGRES, "postgresql://owner:secret@db/dagster")
    home.prepare()
    assert file.read_text() == SERVER
    assert "secret" not in file.read_text()
    assert os.environ[POSTGRES] == "postgresql+psycopg2://owner:secret@db/dagster"
    file.write_text("telemetry: {enabled: true}\n")
    home.prepare()
    assert file.read_text() == "telemetry: {enabled: true}\n"


def test_work_with_networks_takes_a_place_in_a_pool() -> None:
    from orchestration.definitions import defs

    nodes = defs.resolve_asset_graph().asset_nodes
    pools = {node.key.to_user_string(): set(node.pools or ()) for node in nodes}
    assert pools["recaptioned"] == {"captioner"}
    for asset in ("vae", "latents", "latent_diffusion", "evaluation_report"):
        assert pools[asset] == {"gpu"}
    for asset in ("raw_pairs", "image_set", "training_set", "champion_captioners"):
        assert pools[asset] == set()


def test_assets_are_made_on_servers_and_read_back_by_another_instance(
    postgres: dict[str, str],
    tracking_server: str,
    artifacts: str,
    s3_endpoint: str,
    ray_executor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "ATELIER_HOME": str(tmp_path),
        POSTGRES: postgres["dagster"],
        "MLFLOW_TRACKING_URI": tracking_server,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    ray_executor._connect()  # the runs below find this cluster and use it
    target = Target("scenes", "smoke", SMALL)
    target.home.prepare()
    monkeypatch.setenv("DAGSTER_HOME", str(target.home.dagster_home))
    for job in ("ingest", "images", "autoencoder"):
        assert run_job(target, job)
    assert not list(tmp_path.rglob("*.db")), "something still wrote to sqlite"

    with dg.DagsterInstance.from_config(str(target.home.dagster_home)) as instance:
        assert instance.get_materialized_partitions(dg.AssetKey("raw_pairs")) == {"00000", "00001"}
        event = instance.get_latest_materialization_event(dg.AssetKey("vae"))
        metadata = event.asset_materialization.metadata
        jobs = {run.job_name: run.status for run in instance.get_runs()}
    assert jobs == dict.fromkeys(("ingest", "images", "autoencoder"), dg.DagsterRunStatus.SUCCESS)
    run_id = metadata["mlflow_run_id"].value
    assert metadata["mlflow_run"].value == f"{tracking_server}/#/runs/{run_id}"

    record = Lake(target.home.lake).record("vae", "model")
    champion = open_tracker(tracking_server).by_alias("scenes-smoke-vae", "champion")
    assert str(champion) == record.registry == metadata["registry"].value
    kept = artifact_names(s3_endpoint, artifacts)
    assert {"samples/final.png", "losses.png", "recipe_section.json"} <= kept[run_id]


def artifact_names(endpoint: str, bucket: str) -> dict[str, set[str]]:
    """Artifacts in the bucket by the run that they belong to."""
    fs = file_system(endpoint)
    names: dict[str, set[str]] = {}
    for path in fs.find(bucket):
        run, separator, name = path.removeprefix(bucket.removeprefix("s3://") + "/").partition("/artifacts/")
        if separator:
            names.setdefault(run.rpartition("/")[2], set()).add(name)
    return names
