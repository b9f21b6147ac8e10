"""Credentials in the environment leave no trace in anything that a run writes or says."""

import base64
import io
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import pyarrow.parquet as pq
import pytest

from components.addresses import has_credentials, without_credentials
from components.data.catalog import load_dataset
from components.data.dataset_file import WebdatasetSource
from components.data.images import Rejection
from components.data.ingest import RejectedRows
from components.data.opt_outs import read_opt_outs
from components.data.sources import UnreadableShard, open_shard, state_of
from components.data.storage import StorageError, named_failures, open_file
from components.tracking import open_tracker
from orchestration.definitions import build_definitions
from orchestration.home import mlflow_url
from orchestration.partitions import register_shards
from orchestration.resources import LakeResource, TrackingResource
from tests.storage_servers import mlflow_server

USER, PASSWORD = "planted-user", "planted-tracking-password"
PLANTED = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED00",
    "AWS_SECRET_ACCESS_KEY": "planted/aws/secret+key0123456789abcdefgh",
    "AWS_SESSION_TOKEN": "planted-session-token",
    "ATELIER_POSTGRES_URL": "postgresql://dagster:planted-postgres-password@127.0.0.1:1/dagster",
    "PGPASSWORD": "planted-postgres-password",
    "RAY_AUTH_TOKEN": "planted-ray-token-0123456789abcdef",
    "UPSAMPLER_KEY": "sk-planted-upsampler-key",
}
SECRETS = [*PLANTED.values(), "planted-postgres-password", PASSWORD, f"{USER}:{PASSWORD}"]
RECIPE = {
    "dataset": "scenes",
    "recipe": "smoke",
    "overrides": {
        "data.max_rows_per_shard": "24",
        "data.max_shards": "1",
        "vae.training.num_steps": "3",
        "upsampler_endpoint": '{"base_url": "http://127.0.0.1:9/v1", "model": "m", "key_variable": "UPSAMPLER_KEY"}',
    },
}


def leaks(folder: Path) -> dict[str, list[str]]:
    """By file: the secrets that it holds, plain, quoted as in an address or in base64; tables are unpacked."""
    wanted = {form for secret in SECRETS for form in (secret, quote(secret, safe=""))}
    wanted |= {base64.b64encode(secret.encode()).decode() for secret in SECRETS}
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".parquet":
                names = [name for name in pq.read_schema(path).names if name not in ("image", "latents")]
                data += str(pq.read_table(path, columns=names).to_pylist()).encode()
            if held := sorted(secret for secret in wanted if secret.encode() in data):
                found[str(path.relative_to(folder))] = held
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A tracking server that keeps everything below ``tmp_path``, its own log too; its host and port."""
    kept = tmp_path / "mlflow"
    kept.mkdir()
    with mlflow_server(f"sqlite:///{kept}/mlflow.db", str(kept / "kept"), {}, kept / "server.log") as url:
        yield url.removeprefix("http://")


def test_no_secret_is_left_anywhere(tmp_path: Path, server: str, monkeypatch, capfd, caplog) -> None:
    tracking = f"http://{USER}:{PASSWORD}@{server}"
    for name, value in {**PLANTED, "MLFLOW_TRACKING_URI": tracking, "ATELIER_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    dagster_home = tmp_path / "dagster"
    dagster_home.mkdir()
    (dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    definitions = build_definitions()
    ends = dict.fromkeys(("dagster/asset_partition_range_start", "dagster/asset_partition_range_end"), "00000")
    config = {"resources": {"recipe": {"config": RECIPE}}}
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        register_shards(instance, ["00000"])
        for job, tags in (("ingest", ends), ("images", {}), ("autoencoder", {}), ("diffusion", {})):
            done = definitions.resolve_job_def(job).execute_in_process(
                instance=instance, run_config=config, tags=tags, raise_on_error=False
            )
            assert done.success == (job != "diffusion")  # which has no parents here: failures are looked through too
        shown = instance.get_latest_materialization_event(dg.AssetKey("vae"))
        assert shown is not None
        assert shown.asset_materialization is not None
        link = shown.asset_materialization.metadata["mlflow_run"].value
        assert str(link).startswith(f"http://{server}/#")
    said = tmp_path / "said.log"
    said.write_text("".join(capfd.readouterr()) + caplog.text)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in written} >= {".db", ".json", ".parquet", ".safetensors", ".log", ".png"}
    assert leaks(tmp_path) == {}
    (tmp_path / "note.txt").write_text(f"connecting to {tracking}")
    assert list(leaks(tmp_path)) == ["note.txt"]  # it does find them


def test_addresses_are_shown_without_credentials(monkeypatch) -> None:
    for address, shown in {
        "https://me:secret@host:5000/path?x=1": "https://host:5000/path?x=1",
        "postgresql://me:se@cret@host/db": "postgresql://host/db",
        "https://token@host/a.parquet": "https://host/a.parquet",
        "https://host/a?X-Amz-Credential=AKIA%2F1&X-Amz-Signature=ab12&b=2": "https://host/a?X-Amz-Credential=...&"
        "X-Amz-Signature=...&b=2",
        "https://account.blob/c/a.tar?sv=2024&sig=ab%3D#0001.jpg": "https://account.blob/c/a.tar?sv=2024&sig=...#0001.jpg",
        "no route to http://me:secret@host, tried twice": "no route to http://host, tried twice",
    }.items():
        assert without_credentials(address) == shown
        assert has_credentials(address)
    for plain in ("s3://bucket/a@b/c", "sqlite:////tmp/a@b/mlflow.db", "/data/me:you@here.tar", "file:///a@b", "a@b.c"):
        assert without_credentials(plain) == plain
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@mlflow:5000")
    assert mlflow_url() == "http://mlflow:5000"
    monkeypatch.setenv("ATELIER_MLFLOW_URL", "https://mlflow.example.org")
    assert mlflow_url() == "https://mlflow.example.org"  # what browsers know, not what containers call it


def test_failures_of_sources_and_storages_do_not_name_credentials() -> None:
    address = "https://me:secret@host/cats.tar?sig=secret"
    assert "secret" not in str(UnreadableShard(address, f"no route to {address}"))

    def fail() -> None:
        with named_failures(address, "read"):
            raise OSError(f"403 for {address}")

    with pytest.raises(StorageError) as failure:
        fail()
    assert "secret" not in str(failure.value)
    assert "https://host/cats.tar?sig=..." in str(failure.value)


def test_neither_rows_nor_lists_nor_causes_name_credentials(monkeypatch) -> None:
    address = f"https://me:{PASSWORD}@host/cats?sig={PASSWORD}"
    rejected = RejectedRows()
    rejected.add("a", f"{address}#a.png", Rejection("no_image", f"'a.png' is not a file below {address}"))
    assert PASSWORD not in str(rejected.table().to_pylist())
    assert PASSWORD not in repr(UnreadableShard(address, f"no route to {address}"))

    @contextmanager
    def found(_: str) -> Iterator[io.BytesIO]:
        yield io.BytesIO(b"{}")

    def lost(_: str) -> None:
        raise FileNotFoundError(address)

    def refused(_: str) -> None:
        raise OSError(f"403 for {address}")

    dataset = load_dataset("scenes")
    remote = WebdatasetSource(name="cats", format="webdataset", uri="${CATS}")
    dataset = replace(dataset, facts=dataset.facts.model_copy(update={"source": (remote,)}), uris=(address,))
    failures: list[tuple[str, object, Callable[[], object]]] = [
        ("components.data.opt_outs.open_file", found, lambda: read_opt_outs([address])),
        ("components.data.opt_outs.open_file", lost, lambda: read_opt_outs([address])),
        ("components.data.storage.open_storage", lost, lambda: open_file(address).__enter__()),
        ("components.data.storage.open_storage", refused, lambda: open_file(address).__enter__()),
        ("components.data.sources.open_storage", lost, lambda: state_of(address)),
        ("components.data.sources.open_storage", refused, lambda: open_shard(address).__enter__()),
        ("components.data.catalog.resolve_uri", refused, lambda: dataset.reader(32)),
    ]
    for place, replacement, fail in failures:
        with monkeypatch.context() as patched:
            patched.setattr(place, replacement)
            with pytest.raises(Exception, match="host/cats") as failure:
                fail()
        assert PASSWORD not in "".join(traceback.format_exception(failure.value)), place


def test_an_address_with_a_password_is_refused_where_it_would_be_stored() -> None:
    from orchestration.home import Home

    with pytest.raises(ValueError, match="set MLFLOW_TRACKING_URI in the environment instead") as refused:
        TrackingResource(uri="http://me:secret@host").open(Home("scenes", "smoke"))
    assert "secret@" not in str(refused.value)
    with pytest.raises(ValueError, match="set ATELIER_LAKE in the environment instead"):
        LakeResource(uri="sftp://me:secret@host/lake").open(Home("scenes", "smoke"))
    assert open_tracker("http://me:secret@host").uri == "http://me:secret@host"  # who connects needs all of it
