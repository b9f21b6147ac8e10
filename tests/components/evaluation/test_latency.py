import time

import pytest

from components.evaluation.latency import images_per_second


def test_the_rate_is_that_of_the_median_call_and_warm_ups_are_not_timed() -> None:
    calls = 0

    def produce() -> None:
        nonlocal calls
        calls += 1
        end = time.perf_counter() + (0.3 if calls == 1 else 0.02)
        while time.perf_counter() < end:
            pass

    figure = images_per_second(produce, 10)
    assert calls == 7
    assert 20 < figure.value <= 500
    assert figure.ci95 is not None
    assert figure.ci95[0] <= figure.value <= figure.ci95[1]
    assert figure.num_samples == 60


def test_few_repeats_give_no_interval() -> None:
    figure = images_per_second(lambda: sum(range(1000)), 1, num_warmups=0, num_repeats=2)
    assert figure.ci95 is None
    assert figure.value > 0


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        images_per_second(lambda: None, 0)
