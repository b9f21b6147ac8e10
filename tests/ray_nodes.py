"""A Ray cluster of several nodes on this machine, as ``ray start`` makes it on several machines.

Each node is a raylet of its own, with its own CPUs, object store and workers. Ports are chosen anew, everything lies in
one temporary folder, and a secret keeps others out, so that clusters of other people on the machine stay apart.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.processes import wait_until
from tests.servers import free_ports

OBJECT_STORE_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Nodes:
    """Where the cluster answers, and what a process must be started with to talk to it."""

    address: str
    dashboard: str
    environment: Mapping[str, str]
    folder: Path


@contextmanager
def ray_nodes(cpus_of_nodes: Sequence[int], environment: Mapping[str, str]) -> Iterator[Nodes]:
    """A head and workers with so many CPUs each; ``environment`` is what Ray jobs will see. All end with the block."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # its sockets' paths must be short
    gcs, dashboard, client = free_ports(3)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    quiet = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    nodes = Nodes(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", secret, folder)
    own = {**environment, **secret, **quiet, "PATH": path}
    head = ["--head", f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    head += ["--dashboard-host=127.0.0.1", "--include-dashboard=true", f"--temp-dir={folder}"]
    processes: list[subprocess.Popen] = []
    try:
        for number, num_cpus in enumerate(cpus_of_nodes):
            role = head if number == 0 else [f"--address={nodes.address}"]
            processes.append(_start(role, num_cpus, own, folder / f"node-{number}.log"))
            _wait_until(lambda: _is_open(gcs), processes, folder)
        _wait_until(lambda: _count_alive(nodes) == len(cpus_of_nodes), processes, folder)
        yield nodes
    finally:
        for process in reversed(processes):
            _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _start(role: Sequence[str], num_cpus: int, environment: Mapping[str, str], log: Path) -> subprocess.Popen:
    # Two raylets of one machine must not hand out the same ports to their workers: 0 takes free ones.
    ports = ("min-worker-port", "max-worker-port", "dashboard-agent-listen-port", "metrics-export-port")
    options = [f"--num-cpus={num_cpus}", f"--object-store-memory={OBJECT_STORE_BYTES}", "--node-ip-address=127.0.0.1"]
    options += ["--disable-usage-stats", "--block", *(f"--{name}=0" for name in ports)]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *role, *options]
    with log.open("w") as said:
        return subprocess.Popen(
            command, env=dict(environment), stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )


def _end(process: subprocess.Popen) -> None:
    """End a node: ``ray start --block`` ends what it started when it is asked to."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=60)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait_until(is_ready: Callable[[], bool], processes: Sequence[subprocess.Popen], folder: Path) -> None:
    def is_ready_or_ended() -> bool:
        for number, process in enumerate(processes):
            if process.poll() is not None:
                raise RuntimeError(f"Ray node {number} ended:\n{_said(folder, number)}")
        return is_ready()

    wait_until(is_ready_or_ended, "an answer of the Ray head")


def _said(folder: Path, number: int) -> str:
    return (folder / f"node-{number}.log").read_text()[-3000:]


def _is_open(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as one:
        return one.getsockname() != one.getpeername()  # a port that nobody listens on may answer itself
    return False


def _count_alive(nodes: Nodes) -> int:
    """Nodes that the cluster knows, once its job server takes requests, which it does a while after they are there."""
    headers = {"Authorization": f"Bearer {nodes.environment['RAY_AUTH_TOKEN']}"}
    with suppress(OSError):
        for path in ("/api/jobs/", "/api/v0/nodes"):
            request = urllib.request.Request(f"{nodes.dashboard}{path}", headers=headers)
            with urllib.request.urlopen(request, timeout=5) as answer:
                told = json.load(answer)
        return sum(node["state"] == "ALIVE" for node in told["data"]["result"]["result"])
    return 0
