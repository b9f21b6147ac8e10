from types import SimpleNamespace

import pytest

from components.evaluation import latency
from components.evaluation.latency import images_per_second


def test_the_rate_is_that_of_the_median_call_and_warm_ups_are_not_timed(monkeypatch) -> None:
    clock, calls = 100.0, [9.0, 2.0, 4.0, 2.0, 1.0, 5.0, 2.0]
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: clock))

    def produce() -> None:
        nonlocal clock
        clock += calls.pop(0)

    figure = images_per_second(produce, 10)
    assert calls == []
    assert figure.value == 10 / 2
    assert figure.ci95 == (10 / 5, 10 / 1)
    assert figure.num_samples == 60


def test_few_repeats_give_no_interval() -> None:
    figure = images_per_second(lambda: sum(range(1000)), 1, num_warmups=0, num_repeats=2)
    assert figure.ci95 is None
    assert figure.value > 0


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        images_per_second(lambda: None, 0)
