from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.s3 import FaultyProxy, environment_for, file_system, s3_server
from tests.storage_servers import mlflow_server, postgres_server

if TYPE_CHECKING:
    from components.execution.ray_executor import RayExecutor


SMOKE = "tests/smoke/"
# The same examples each time, however long they take.
UNCHECKED = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
settings.register_profile("suite", derandomize=True, deadline=None, suppress_health_check=UNCHECKED)
settings.load_profile("suite")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each process of pytest-xdist takes whole files, so that a file's fixtures are made once.

    The tests of the whole graph share what it leaves behind: one process has them all.
    """
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return SMOKE if nodeid.startswith(SMOKE) else super()._split_scope(nodeid)

    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of the whole graph take longest, so they begin."""
    items.sort(key=lambda item: not item.nodeid.startswith(SMOKE))


@pytest.fixture(scope="session", autouse=True)
def can_be_interrupted() -> None:
    """A process that was started in the background ignores Ctrl-C and so do its children; these tests press it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


_TOLD = pytest.StashKey[list[str]]()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Put a line into the summary at the end: what was done to something, what happened, how long it took."""
    return request.config.stash.setdefault(_TOLD, []).append


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what tests told to the process that prints, where pytest-xdist runs them in others."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["told"] = session.config.stash.get(_TOLD, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take it there."""
    node.config.stash.setdefault(_TOLD, []).extend(getattr(node, "workeroutput", {}).get("told", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what tests told."""
    for line in config.stash.get(_TOLD, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def ray_executor() -> Iterator[RayExecutor]:
    """One private Ray cluster of two CPUs for the whole test session; connects at its first use."""
    from components.execution.ray_executor import RayExecutor

    with RayExecutor("local", num_cpus=2, object_store_mb=128) as executor:
        yield executor


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real HTTP S3 endpoint of this process, one for the whole session; tests make buckets of their own names."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """That endpoint behind a proxy that can be told to break requests, found through AWS_ENDPOINT_URL."""
    import s3fs

    proxy = FaultyProxy(s3_endpoint)
    for name, value in environment_for(proxy.endpoint).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield proxy
    s3fs.S3FileSystem.clear_instance_cache()
    proxy.close()


@pytest.fixture
def bucket(s3: FaultyProxy) -> str:
    """The URI of a new, empty bucket behind the proxy."""
    import uuid

    import s3fs

    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[dict[str, str]]:
    """A real PostgreSQL with two empty databases: their addresses by name (dagster, mlflow)."""
    with postgres_server("dagster", "mlflow") as addresses:
        yield addresses


@pytest.fixture(scope="session")
def artifacts(s3_endpoint: str) -> str:
    """The URI of a bucket for MLflow's artifacts."""
    bucket = "mlflow-artifacts"
    file_system(s3_endpoint).mkdir(bucket)
    return f"s3://{bucket}"


@pytest.fixture(scope="session")
def tracking_server(
    postgres: dict[str, str], artifacts: str, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A real MLflow tracking server on PostgreSQL, with its artifacts on S3; its address."""
    log = tmp_path_factory.mktemp("mlflow") / "server.log"
    with mlflow_server(postgres["mlflow"], artifacts, environment_for(s3_endpoint), log) as address:
        yield address
