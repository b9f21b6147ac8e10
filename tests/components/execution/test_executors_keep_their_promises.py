from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from components.contracts import Elasticity, Executor, Gang, InsufficientResources, Resources
from components.execution.local_executor import LocalExecutor
from components.execution.ray_executor import Head, LostWorker, RayExecutor, start_head
from tests.processes import PATIENCE

ONE_CPU = Resources(num_cpus=1)


@pytest.fixture(scope="module", params=["local", "ray"])
def executor(request: pytest.FixtureRequest) -> Executor:
    return LocalExecutor() if request.param == "local" else request.getfixturevalue("ray_executor")


def counting_factory(folder: Path) -> Callable[[], Callable[[int], tuple[int, int]]]:
    """Work that says who did it, and leaves one file for each time that it was built."""

    def build() -> Callable[[int], tuple[int, int]]:
        import os
        import uuid

        (folder / f"{os.getpid()}-{uuid.uuid4().hex}").touch()
        return lambda item: (item, os.getpid())

    return build


# ----------------------------------------------------------------------------------------------------------------- map
def test_map_keeps_the_order_and_builds_the_work_once_per_worker(executor: Executor, tmp_path: Path) -> None:
    results = list(executor.map(counting_factory(tmp_path), range(12), resources=ONE_CPU))
    assert [item for item, _ in results] == list(range(12))
    workers = {worker for _, worker in results}
    built = [int(path.name.split("-")[0]) for path in tmp_path.iterdir()]
    assert len(built) == len(set(built)) <= 2
    assert workers <= set(built)


def test_workers_get_slices_without_the_rest_and_the_threads_they_asked_for(ray_executor: RayExecutor) -> None:
    def build() -> Callable[[pa.Table], tuple[int, pa.Table, list[str | None]]]:
        import os

        threads = [os.environ.get("OMP_NUM_THREADS"), os.environ.get("OMP_WAIT_POLICY")]
        return lambda table: (table.get_total_buffer_size(), table.slice(1, 1), threads)

    table = pa.table({"key": [f"{i:04d}" for i in range(10_000)]})
    [(size, row, threads)] = ray_executor.map(build, [table.slice(0, 2)], resources=Resources(num_cpus=2))
    assert size < 1000
    assert row.to_pylist() == [{"key": "0001"}]
    assert threads == ["2", "passive"]


def test_workers_have_the_priority_of_their_driver(ray_executor: RayExecutor) -> None:
    def build() -> Callable[[int], int]:
        import os

        return lambda item: os.nice(0)

    assert list(ray_executor.map(build, range(1), resources=ONE_CPU)) == [os.nice(0)]


def test_map_of_nothing_starts_nothing(executor: Executor, tmp_path: Path) -> None:
    assert list(executor.map(counting_factory(tmp_path), [], resources=ONE_CPU)) == []
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_work_arrive_with_their_message(executor: Executor) -> None:
    def build() -> Callable[[int], int]:
        def work(item: int) -> int:
            if item == 2:
                raise ValueError(f"row {item} is bad: look at column caption")
            return item

        return work

    results = executor.map(build, range(5), resources=ONE_CPU)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="row 2 is bad: look at column caption"):
        next(results)


def test_errors_of_the_factory_arrive_even_where_they_cannot_be_pickled(ray_executor: RayExecutor) -> None:
    def build() -> Callable[[int], int]:
        class Complaint(Exception):
            def __init__(self, row: int, *, remedy: str) -> None:
                super().__init__(f"row {row} is bad: {remedy}")

        raise Complaint(7, remedy="write a caption")

    with pytest.raises(RuntimeError, match="Complaint: row 7 is bad: write a caption"):
        list(ray_executor.map(build, range(2), resources=ONE_CPU))


def test_a_worker_that_dies_ends_the_map(ray_executor: RayExecutor) -> None:
    def build() -> Callable[[int], int]:
        import os

        return lambda item: os._exit(3)

    with pytest.raises(Exception, match=r"(?i)died|dead"):
        list(ray_executor.map(build, range(2), resources=ONE_CPU))


@pytest.mark.parametrize("resources", [Resources(num_cpus=4096), Resources(num_cpus=1, num_gpus=64)])
def test_map_refuses_a_worker_that_fits_nowhere(executor: Executor, resources: Resources, tmp_path: Path) -> None:
    wanted = resources.num_gpus or resources.num_cpus
    with pytest.raises(InsufficientResources, match=rf"{wanted:g} [CG]PUs.*ower the recipe's"):
        executor.map(counting_factory(tmp_path), range(3), resources=resources)
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------------------------------------------- fit
def test_one_worker_trains_in_this_process(executor: Executor) -> None:
    def train(gang: Gang, config: Mapping[str, Any]) -> Mapping[str, Any]:
        import torch

        return {
            "pid": os.getpid(),
            "gang": (gang.rank, gang.world_size),
            "steps": config["steps"],
            "threads": torch.get_num_threads(),
        }

    got = executor.fit(train, {"steps": 3}, num_workers=1, resources=ONE_CPU)
    assert got == {"pid": os.getpid(), "gang": (0, 1), "steps": 3, "threads": 1}


def test_two_workers_form_a_process_group_and_rank_0_answers(ray_executor: RayExecutor) -> None:
    def train(gang: Gang, config: Mapping[str, Any]) -> Mapping[str, Any]:

        import torch

        total = torch.tensor([float(gang.rank + 1)])
        torch.distributed.all_reduce(total)
        return {
            "rank": gang.rank,
            "workers": gang.world_size,
            "total": total.item() * config["scale"],
            "backend": torch.distributed.get_backend(),
            "threads": torch.get_num_threads(),
            "folder": str(Path.cwd()),
        }

    got = ray_executor.fit(train, {"scale": 2.0}, num_workers=2, resources=ONE_CPU)
    folder = str(Path.cwd())
    assert got == {"rank": 0, "workers": 2, "total": 6.0, "backend": "gloo", "threads": 1, "folder": folder}
    assert "RAY_TRAIN_METRICS_ENABLED" not in os.environ


@pytest.mark.parametrize("num_workers", [1, 2])
def test_errors_of_a_training_arrive_with_their_message(ray_executor: RayExecutor, num_workers: int) -> None:
    def train(gang: Gang, config: Mapping[str, Any]) -> Mapping[str, Any]:
        if gang.rank == gang.world_size - 1:
            raise FloatingPointError("the loss of step 12 is not a number")
        return {}

    with pytest.raises(FloatingPointError, match="the loss of step 12 is not a number"):
        ray_executor.fit(train, {}, num_workers=num_workers, resources=ONE_CPU)


def test_a_gang_that_loses_a_worker_starts_again_and_gives_up_in_the_end(
    ray_executor: RayExecutor, tmp_path: Path
) -> None:
    def train(gang: Gang, config: Mapping[str, Any]) -> Mapping[str, Any]:
        import os
        import signal

        import torch

        starts = len(list(tmp_path.glob(f"{gang.rank}-*")))
        (tmp_path / f"{gang.rank}-{starts}").touch()
        if gang.rank == 1 and starts < config["dies"]:
            os.kill(os.getpid(), signal.SIGKILL)
        torch.distributed.barrier()
        return {"starts": starts + 1}

    survives_one = Elasticity(max_lost_workers=1)
    got = ray_executor.fit(train, {"dies": 1}, num_workers=2, resources=ONE_CPU, elasticity=survives_one)
    assert got == {"starts": 2}
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(LostWorker, match="was lost"):
        ray_executor.fit(train, {"dies": 9}, num_workers=2, resources=ONE_CPU)
    assert len(list(tmp_path.glob("1-*"))) == 1


def test_an_elastic_gang_takes_the_largest_size_that_fits(ray_executor: RayExecutor) -> None:
    def train(gang: Gang, config: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"workers": gang.world_size}

    elastic = Elasticity(sizes=(1, 2, 4))
    assert ray_executor.fit(train, {}, num_workers=8, resources=ONE_CPU, elasticity=elastic) == {"workers": 2}
    with pytest.raises(InsufficientResources, match=r"4 worker\(s\) of 1 CPUs"):
        ray_executor.fit(train, {}, num_workers=8, resources=ONE_CPU, elasticity=Elasticity(sizes=(4,)))


def test_an_interrupted_training_gives_its_workers_back(ray_executor: RayExecutor) -> None:
    driver = os.getpid()

    def train(gang: Gang, config: Mapping[str, Any]) -> Mapping[str, Any]:
        import os
        import signal
        import threading

        if gang.rank == 0:
            os.kill(driver, signal.SIGINT)
        threading.Event().wait(120)
        return {}

    with pytest.raises(KeyboardInterrupt):
        ray_executor.fit(train, {}, num_workers=2, resources=ONE_CPU)
    echoes = ray_executor.map(lambda: str, [1, 2], resources=Resources(num_cpus=2))
    assert list(echoes) == ["1", "2"]


def never_called(gang: Gang, config: Mapping[str, Any]) -> Mapping[str, Any]:
    raise AssertionError("the training ran")


@pytest.mark.parametrize("resources", [Resources(num_cpus=4096), Resources(num_cpus=1, num_gpus=64)])
def test_fit_refuses_a_worker_that_is_too_big(executor: Executor, resources: Resources) -> None:
    with pytest.raises(InsufficientResources, match="ower the recipe's"):
        executor.fit(never_called, {}, num_workers=1, resources=resources)


def test_fit_refuses_a_gang_that_is_too_big(executor: Executor) -> None:
    with pytest.raises(InsufficientResources, match="64 worker"):
        executor.fit(never_called, {}, num_workers=64, resources=ONE_CPU)


def test_one_worker_with_a_gpu_goes_to_the_cluster_that_is_named(
    ray_executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray_executor.map(lambda: str, [0], resources=ONE_CPU)  # connects
    monkeypatch.setenv("RAY_ADDRESS", "cluster:6379")
    named = RayExecutor()
    with pytest.raises(InsufficientResources, match="Ray cluster holds 0: its nodes have 2 CPUs and 0 GPUs"):
        named.fit(never_called, {}, num_workers=1, resources=Resources(num_gpus=1))
    with pytest.raises(InsufficientResources, match="this machine has 0"):
        ray_executor.fit(never_called, {}, num_workers=1, resources=Resources(num_gpus=1))
    named.shutdown()
    assert list(ray_executor.map(lambda: str, [1], resources=ONE_CPU)) == ["1"]


def test_a_gang_that_waits_in_vain_says_so(ray_executor: RayExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    class Holder:
        def ready(self) -> bool:
            return True

    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "1")
    ray_executor.map(lambda: str, [0], resources=ONE_CPU)  # connects
    holder: Any = ray.remote(num_cpus=1)(Holder).remote()
    assert ray.get(holder.ready.remote())
    try:
        with pytest.raises(InsufficientResources, match="stayed busy"):
            ray_executor.fit(never_called, {}, num_workers=2, resources=ONE_CPU)
    finally:
        ray.kill(holder)


# ------------------------------------------------------------------------------------------------------------ clusters
def test_the_ray_client_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ray://head:10001.*Ray job"):
        RayExecutor("ray://head:10001")


def test_importing_the_executors_imports_neither_ray_nor_torch() -> None:
    code = "import sys, components.execution.ray_executor; print({'ray', 'torch'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "set()"


def session_members(session: int) -> set[int]:
    members = set()
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if os.getsid(int(path.name)) == session and "Z" not in (path / "stat").read_text().split()[2]:
                    members.add(int(path.name))
            except (ProcessLookupError, FileNotFoundError):
                continue
    return members


ATTACH = """
import os
from components.contracts import Gang, Resources
from components.execution.ray_executor import RayExecutor
def build():
    return lambda item: item * item
with RayExecutor() as executor:
    print(list(executor.map(build, range(4), resources=Resources())), executor.address)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_processes_attach_to_a_shared_head_which_leaves_nothing_behind() -> None:
    head: Head = start_head(num_cpus=1, object_store_mb=96)
    session = head._process.pid
    try:
        assert len(session_members(session)) > 3
        bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        command = [sys.executable, "-c", ATTACH]
        said = subprocess.run(command, env=bare | head.environment, capture_output=True, text=True, timeout=PATIENCE)
        assert said.stdout.strip() == f"[0, 1, 4, 9] {head.address}", said.stderr
    finally:
        head.stop()
        head.stop()
    assert session_members(session) == set()
    assert not head._folder.exists()


def test_a_head_that_cannot_start_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)before it was ready.*ValueError"):
        start_head(num_cpus=1, object_store_mb=1)
