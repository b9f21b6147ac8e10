from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from components.execution.ray_executor import RayExecutor


@pytest.fixture(scope="session", autouse=True)
def can_be_interrupted() -> None:
    """A process that was started in the background ignores Ctrl-C and so do its children; these tests press it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def ray_executor() -> Iterator[RayExecutor]:
    """One private Ray cluster of two CPUs for the whole test session; connects at its first use."""
    from components.execution.ray_executor import RayExecutor

    with RayExecutor("local", num_cpus=2, object_store_mb=128) as executor:
        yield executor
