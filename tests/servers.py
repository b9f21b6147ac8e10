"""Servers in processes of their own, as a user starts them, and Ctrl-C at the end."""

import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.command_line import atelier, environment_for
from tests.processes import PATIENCE, wait_until

PORTS = range(20_000, 32_768)  # below those that a system gives to connections, which could take one meanwhile


def free_ports(count: int) -> list[int]:
    """Different ports of this machine that nobody listens on now."""
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:
            sockets.append(socket.socket())
            while True:
                with suppress(OSError):
                    sockets[-1].bind(("127.0.0.1", random.choice(PORTS)))
                    break
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def get(url: str, body: Mapping[str, Any] | None = None, timeout: float = PATIENCE) -> Any:
    """The JSON that a URL answers with; a body is posted."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.loads(answer.read())


@contextmanager
def serving(
    command: Sequence[str], environment: Mapping[str, str], answers_at: Sequence[str], log: Path | None = None
) -> Iterator[subprocess.Popen]:
    """Run a command until each of its addresses answers, and end it as Ctrl-C would.

    What it says goes into ``log``, and into the failure where it ends by itself.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = log or Path(folder) / "said"
        with log.open("w") as said:
            server = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
        try:
            deadline = time.monotonic() + PATIENCE
            for url in answers_at:
                wait_until(
                    lambda url=url: _answers(url, server, log), f"an answer of {url}", deadline - time.monotonic()
                )
            yield server
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(timeout=120)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)


@contextmanager
def dev_server(home: Path, recipe: str, **added: str) -> Iterator[dict[str, str]]:
    """``atelier dev`` on a home; the addresses of ``dagster`` and ``mlflow``."""
    ports = zip(("dagster", "mlflow"), free_ports(2), strict=True)
    found = {name: f"http://127.0.0.1:{port}" for name, port in ports}
    added |= {f"ATELIER_{name.upper()}_URL": url for name, url in found.items()}
    answers_at = [f"{found['dagster']}/server_info"]
    if not added.get("MLFLOW_TRACKING_URI"):
        answers_at.append(f"{found['mlflow']}/version")
    with serving(atelier("dev", "--recipe", recipe), environment_for(home, **added), answers_at):
        yield found


@contextmanager
def page_server(home: Path, recipe: str) -> Iterator[str]:
    """``atelier page`` on a home; its address."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with serving(atelier("page", "--recipe", recipe, "--port", str(port)), environment_for(home), (url,)):
        yield url


def _answers(url: str, server: subprocess.Popen, log: Path) -> bool:
    if server.poll() is not None:
        raise RuntimeError(f"the server ended: {log.read_text(errors='replace')[-3000:]}")
    with suppress(OSError), urllib.request.urlopen(url, timeout=5):
        return True
    return False
