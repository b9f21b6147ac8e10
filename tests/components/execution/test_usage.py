"""CPU and GPU seconds are measured where work runs, and counted once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from components.contracts import Gang, Resources
from components.execution import usage as usage_module
from components.execution.local_executor import LocalExecutor
from components.execution.ray_executor import RayExecutor
from components.execution.usage import Meter, Usage, metered

BURN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\n"


def burn(seconds: float) -> None:
    """Use a CPU for so long, however busy the machine is."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def burner(building: float, working: float) -> Callable[[], Callable[[int], int]]:
    """A factory that burns, and whose work burns, in workers that cannot import this module."""
    program = BURN

    def build() -> Callable[[int], int]:
        exec(program.format(building))

        def work(item: int) -> int:
            exec(program.format(working))
            return item

        return work

    return build


def test_used_seconds_count_and_waiting_does_not() -> None:
    meter = Meter()
    time.sleep(0.5)
    waited = meter.lap()
    burn(0.3)
    assert waited.cpu_seconds < 0.3 <= meter.read().cpu_seconds


def test_processes_that_were_started_count_while_they_live_and_afterwards() -> None:
    meter = Meter()
    program = BURN.format(0.5) + "print('done', flush=True)\ninput()"
    helper = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert helper.stdout is not None
    assert helper.stdout.readline() == "done\n"
    living = meter.read().cpu_seconds
    helper.communicate("\n")
    ended = meter.read().cpu_seconds
    assert living >= 0.49
    assert living - 0.05 <= ended < living + 0.5


def test_workers_on_ray_measure_themselves_and_the_driver_does_not_count_them_again(ray_executor: RayExecutor) -> None:
    list(ray_executor.map(metered(burner(0, 0)), [0], resources=Resources(1)))  # Ray Data is loaded
    meter = Meter()
    answers = list(ray_executor.map(metered(burner(0.5, 3)), [0, 1], resources=Resources(1), max_workers=1))
    driver = meter.read()
    first, second = answers
    assert [answer.result for answer in answers] == [0, 1]
    assert 3.5 <= first.usage.cpu_seconds < 4.4  # the first item carries the building
    assert 3.0 <= second.usage.cpu_seconds < 3.5
    assert first.seconds >= 3.5
    assert driver.process not in {"", first.usage.process}
    assert driver.cpu_seconds < 6  # Ray Data itself takes two to three
    total = driver.with_workers(answer.usage for answer in answers)
    assert total.cpu_seconds == pytest.approx(driver.cpu_seconds + first.usage.cpu_seconds + second.usage.cpu_seconds)


def test_a_worker_in_the_same_process_is_counted_once() -> None:
    meter = Meter()
    answers = list(LocalExecutor().map(metered(burner(0.2, 0.2)), [0, 1], resources=Resources(1)))
    total = meter.read().with_workers(answer.usage for answer in answers)
    assert 0.6 <= total.cpu_seconds < 0.9


def test_a_gang_adds_up(ray_executor: RayExecutor) -> None:
    program = BURN

    def work(gang: Gang, config: Mapping[str, Any]) -> Mapping[str, Any]:
        import torch

        from components.execution.usage import Meter
        from components.training.loop import summed

        meter = Meter()
        exec(program.format(0.5 * (gang.rank + 1)))
        return {"own": meter.read(), "all": summed(meter.read(), gang, torch.device("cpu"))}

    told = ray_executor.fit(work, {}, num_workers=2, resources=Resources(1))
    assert told["own"].cpu_seconds < 1.0
    assert 1.5 <= told["all"].cpu_seconds < 2.5
    assert told["all"].process == ""
    assert told["all"].peak_memory_gib >= told["own"].peak_memory_gib


def test_a_gpu_counts_for_as_long_as_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert Meter().read().gpu_seconds == 0
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 10 if device < 2 else 0)
    whole, shared = Meter(num_gpus=1), Meter(num_gpus=0.25)
    time.sleep(0.2)
    assert whole.read().gpu_seconds == pytest.approx(0.4, rel=0.5)
    assert shared.read().gpu_seconds == pytest.approx(0.1, rel=0.5)


def test_sums_keep_the_largest_peak_and_no_process_of_several() -> None:
    one, other = Usage(1, 2, 3, "a:1"), Usage(10, 20, 1, "b:1")
    assert one + other == Usage(11, 22, 3, "")
    assert one + one == Usage(2, 4, 3, "a:1")
    assert one.with_workers([other, Usage(5, 5, 9, "a:1")]) == Usage(11, 22, 9, "")


def test_a_process_that_is_gone_counts_nothing() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert usage_module._tree(ended.pid) == 0
