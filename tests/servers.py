"""The project's servers in processes of their own, as a user starts them, and Ctrl-C at the end."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.command_line import atelier, environment_for

START_SECONDS = 480


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url: str, body: Mapping[str, Any] | None = None, timeout: float = 60) -> Any:
    """The JSON that a URL answers with; a body is posted."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.loads(answer.read())


@contextmanager
def serving(command: Sequence[str], environment: Mapping[str, str], answers_at: Sequence[str]) -> Iterator[None]:
    """Run a command until each of its addresses answers, and end it as Ctrl-C would."""
    with tempfile.TemporaryFile() as said:
        server = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        )
        try:
            for url in answers_at:
                _wait_for(url, server, said)
            yield
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(timeout=120)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                raise


@contextmanager
def dev_server(home: Path, recipe: str) -> Iterator[dict[str, str]]:
    """``atelier dev`` on a home; the addresses of ``dagster`` and ``mlflow``."""
    found = {name: f"http://127.0.0.1:{free_port()}" for name in ("dagster", "mlflow")}
    environment = environment_for(home, **{f"ATELIER_{name.upper()}_URL": url for name, url in found.items()})
    answers_at = (f"{found['dagster']}/server_info", f"{found['mlflow']}/version")
    with serving(atelier("dev", "--recipe", recipe), environment, answers_at):
        yield found


@contextmanager
def page_server(home: Path, recipe: str) -> Iterator[str]:
    """``atelier page`` on a home; its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with serving(atelier("page", "--recipe", recipe, "--port", str(port)), environment_for(home), (url,)):
        yield url


def _wait_for(url: str, server: subprocess.Popen, said: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        if server.poll() is not None:
            said.seek(0)
            raise RuntimeError(f"the server ended: {said.read().decode(errors='replace')[-2000:]}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} does not answer") from error
            time.sleep(0.25)
