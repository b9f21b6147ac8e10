"""CPU and GPU seconds are measured where work runs, and counted once.

What is added up is tested with made-up clocks; what real processes and workers take is only bounded from below, because
a busy machine makes everything longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.contracts import Gang, Resources
from components.execution import usage as usage_module
from components.execution.local_executor import LocalExecutor
from components.execution.ray_executor import RayExecutor
from components.execution.usage import Meter, Usage, metered
from tests.processes import wait_until

BURN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\n"


class Clocks:
    """What this process believes that it has used (``cpu``) and what time it is (``wall``), in seconds."""

    def __init__(self) -> None:
        self.cpu = self.wall = 1000.0

    def work(self, cpu: float, waiting: float = 0.0) -> None:
        self.cpu += cpu
        self.wall += cpu + waiting


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    made_up = Clocks()
    monkeypatch.setattr(usage_module, "_cpu_seconds", lambda: made_up.cpu)
    monkeypatch.setattr(usage_module, "time", SimpleNamespace(perf_counter=lambda: made_up.wall))
    return made_up


# -------------------------------------------------------------------------------------------------------- this process
def test_used_seconds_count_and_waiting_does_not(clocks: Clocks) -> None:
    meter = Meter()
    clocks.work(0, waiting=5)
    assert meter.lap().cpu_seconds == 0
    clocks.work(3)
    assert (meter.read().cpu_seconds, meter.read().cpu_seconds) == (3, 3)


def test_a_real_clock_counts_the_threads_of_this_process_and_stands_while_it_sleeps() -> None:
    meter, started = Meter(), time.monotonic()
    time.sleep(0.5)
    waited = meter.lap().cpu_seconds
    assert waited < (time.monotonic() - started) / 2
    exec(BURN.format(0.3))
    assert meter.read().cpu_seconds >= 0.3


# -------------------------------------------------------------------------------------------------------- its processes
def test_processes_count_with_all_that_they_started_while_they_live_and_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the form of proc_pid_stat(5), at 100 ticks a second; a raylet's workers measure themselves."""

    def tell(pid: int, name: str, used: tuple[int, int], ended: tuple[int, int], children: Sequence[int] = ()) -> None:
        task = tmp_path / str(pid) / "task" / str(pid)
        task.mkdir(parents=True, exist_ok=True)
        (task / "children").write_text(" ".join(map(str, children)))
        times = " ".join(map(str, (*used, *ended)))
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) S {'0 ' * 10}{times} 20 0\n")

    me = os.getpid()
    monkeypatch.setattr(usage_module, "_PROC", tmp_path)
    monkeypatch.setattr(usage_module, "_TICKS", 100)
    monkeypatch.setattr(usage_module, "time", SimpleNamespace(process_time=lambda: 10.0))
    tell(me, "python", (999, 999), (30, 20), [7, 8])  # of itself a finer clock tells
    tell(7, "a (strange) name", (100, 50), (25, 25), [9])
    tell(9, "python", (300, 0), (0, 0))
    tell(8, "raylet", (5000, 0), (5000, 0), [10])
    tell(10, "python", (5000, 0), (0, 0))
    assert usage_module._cpu_seconds() == pytest.approx(10 + 0.5 + 2 + 3)
    tell(me, "python", (999, 999), (330 + 200, 20), [8])  # both have ended and were waited for
    assert usage_module._cpu_seconds() == pytest.approx(10 + 5.5)


def test_a_real_process_counts_while_it_lives_and_afterwards() -> None:
    meter = Meter()
    program = BURN.format(0.5) + "print('done', flush=True)\ninput()"
    helper = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert helper.stdout is not None
    assert helper.stdout.readline() == "done\n"
    living = meter.read().cpu_seconds
    helper.communicate("\n")
    assert meter.read().cpu_seconds + 0.05 >= living >= 0.49  # clock ticks


def test_a_process_that_is_gone_counts_nothing() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert usage_module._tree(ended.pid) == 0


# -------------------------------------------------------------------------------------------------------------- workers
def test_the_first_item_carries_what_it_took_to_build_the_work(clocks: Clocks) -> None:
    """And a worker in the same process is counted once."""

    def build() -> Callable[[int], int]:
        clocks.work(2, waiting=1)

        def work(item: int) -> int:
            clocks.work(3, waiting=1)
            return item

        return work

    meter = Meter()
    answers = list(LocalExecutor().map(metered(build), [0, 1], resources=Resources(1)))
    assert [(one.result, one.usage.cpu_seconds, one.seconds) for one in answers] == [(0, 5, 7), (1, 3, 4)]
    assert meter.read().with_workers(answer.usage for answer in answers).cpu_seconds == 8


def test_workers_on_ray_measure_themselves_and_the_driver_does_not_count_them_again(
    ray_executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is held at its second item until the driver has been measured, so that it still lives then."""
    program, held, go_on = BURN, tmp_path / "held", tmp_path / "go-on"

    def build() -> Callable[[int], int]:
        exec(program.format(0.5))

        def work(item: int) -> int:
            exec(program.format(0.5))
            while item and not go_on.exists():
                held.touch()
                time.sleep(0.02)
            return item

        return work

    meter = Meter()
    results = ray_executor.map(metered(build), [0, 1], resources=Resources(1), max_workers=1)
    with ThreadPoolExecutor(1) as reader, monkeypatch.context() as patched:
        reading = reader.submit(list, results)
        try:
            wait_until(lambda: held.exists() or reading.done(), "the second item")
            counted = usage_module._cpu_seconds()
            patched.setattr(usage_module, "_RAYLET", "nobody")
            counted_with_workers = usage_module._cpu_seconds()
        finally:
            go_on.touch()
    first, second = reading.result()
    driver = meter.read()
    assert counted_with_workers - counted >= 1.45  # with the clocks' ticks
    assert [first.result, second.result] == [0, 1]
    assert first.usage.cpu_seconds >= 1.0  # with the building
    assert second.usage.cpu_seconds >= 0.5
    assert first.seconds >= 1.0
    assert driver.process not in {"", first.usage.process}
    total = driver.with_workers([first.usage, second.usage])
    assert total.cpu_seconds == pytest.approx(driver.cpu_seconds + first.usage.cpu_seconds + second.usage.cpu_seconds)


def test_a_gang_adds_up(ray_executor: RayExecutor) -> None:
    program = BURN

    def work(gang: Gang, config: Mapping[str, Any]) -> Mapping[str, Any]:
        import torch

        from components.execution.usage import Meter
        from components.training.loop import summed

        meter = Meter()
        exec(program.format(0.25 * (gang.rank + 1)))
        own = meter.read()
        each: list[Any] = [None, None]
        torch.distributed.all_gather_object(each, own)
        return {"each": each, "all": summed(own, gang, torch.device("cpu"))}

    told = ray_executor.fit(work, {}, num_workers=2, resources=Resources(1))
    first, second = told["each"]
    assert (first.cpu_seconds >= 0.25, second.cpu_seconds >= 0.5) == (True, True)
    assert told["all"].cpu_seconds == pytest.approx(first.cpu_seconds + second.cpu_seconds, rel=1e-4)
    assert told["all"].process == ""
    assert told["all"].peak_memory_gib == pytest.approx(max(first.peak_memory_gib, second.peak_memory_gib), rel=1e-4)


def test_a_gpu_counts_for_as_long_as_it_is_held(clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    meter = Meter()
    clocks.work(1)
    assert meter.read().gpu_seconds == 0
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 10 if device < 2 else 0)
    whole, shared = Meter(num_gpus=1), Meter(num_gpus=0.25)
    clocks.work(1, waiting=3)
    assert whole.read().gpu_seconds == 2 * 4
    assert shared.read().gpu_seconds == 2 * 4 * 0.25


def test_sums_keep_the_largest_peak_and_no_process_of_several() -> None:
    one, other = Usage(1, 2, 3, "a:1"), Usage(10, 20, 1, "b:1")
    assert one + other == Usage(11, 22, 3, "")
    assert one + one == Usage(2, 4, 3, "a:1")
    assert one.with_workers([other, Usage(5, 5, 9, "a:1")]) == Usage(11, 22, 9, "")
