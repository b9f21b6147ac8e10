import numpy as np
import pytest

from components.evaluation.intervals import Figure, across_seeds, clustered_share, jackknife, mean, share


def test_wilsons_interval_has_its_published_value() -> None:
    figure = share([True] * 81 + [False] * 182)  # Newcombe 1998, table I: 81 of 263
    assert figure is not None
    assert figure.value == pytest.approx(0.3080, abs=1e-4)
    assert figure.ci95 == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert figure.num_samples == 263


def test_a_share_without_a_single_miss_is_still_uncertain() -> None:
    figure = share([True] * 20)
    assert figure is not None
    assert figure.ci95 is not None
    assert figure.ci95[0] == pytest.approx(0.8389, abs=1e-3)
    assert figure.ci95[1] == 1


def test_nothing_measured_is_no_figure() -> None:
    assert share([]) is None
    assert mean([]) is None
    assert clustered_share([], []) is None
    assert clustered_share([0, 0], [0, 0]) is None


def test_independent_trials_have_the_interval_of_a_plain_share() -> None:
    hits = np.random.default_rng(0).random(500) < 0.3
    clustered, plain = clustered_share(hits, np.ones(500)), share(hits)
    assert clustered is not None
    assert plain is not None
    assert clustered.value == plain.value
    assert clustered.ci95 == pytest.approx(plain.ci95, abs=1e-3)


def test_trials_that_all_agree_within_a_picture_count_once() -> None:
    hits = 3 * (np.random.default_rng(0).random(200) < 0.4)
    clustered, plain = clustered_share(hits, np.full(200, 3)), share(hits > 0)
    assert clustered is not None
    assert plain is not None
    assert clustered.ci95 == pytest.approx(plain.ci95, abs=2e-3)
    assert clustered.num_samples == 600


def test_clustered_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        totals = rng.integers(1, 4, 120)
        chances = rng.beta(4, 2, 120)  # pictures differ, mean 2/3
        figure = clustered_share(rng.binomial(totals, chances), totals)
        assert figure is not None
        assert figure.ci95 is not None
        covered += figure.ci95[0] <= 2 / 3 <= figure.ci95[1]
    assert 0.92 <= covered / 400 <= 0.98


def test_the_bootstrap_is_near_the_normal_interval_and_repeats_itself() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    figure = mean(values)
    assert figure is not None
    half = 1.96 * values.std(ddof=1) / 20
    assert figure.ci95 == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert mean(values) == figure
    assert mean([3.0]) == Figure(3.0, None, 1)


def test_the_jackknife_of_a_difference_of_means_is_its_standard_error() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(0, 1, 2000), rng.normal(0, 3, 2000)
    low, high = jackknife(lambda kept, others: first[kept].mean() - second[others].mean(), 2000, 2000)
    expected = 1.96 * np.sqrt(1 / 2000 + 9 / 2000)
    assert (high - low) / 2 == pytest.approx(expected, rel=0.35)  # 20 blocks: the error's own error is about 16 %
    assert (high + low) / 2 == pytest.approx(first.mean() - second.mean())


def test_samples_that_seeds_share_do_not_narrow_the_interval():
    one = Figure(0.5, (0.4, 0.65), 100)
    assert across_seeds([one]) is one
    alike = across_seeds([one, one, one])
    assert alike.value == pytest.approx(0.5)
    assert alike.num_samples == 100
    assert alike.ci95 == pytest.approx((0.4, 0.65))


def test_the_spread_of_a_few_seeds_has_students_quantile():
    apart = [Figure(value, (value, value), 100) for value in (10.0, 12.0, 14.0)]
    assert across_seeds(apart).ci95 == pytest.approx((12 - 4.3027 * 2 / 3**0.5, 12 + 4.3027 * 2 / 3**0.5), rel=1e-4)


def test_the_interval_over_seeds_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        shared = rng.normal(0, 0.5)  # the sampling error that all seeds have in common
        seeds = 3.0 + shared + rng.normal(0, 1.0, 3)
        low, high = across_seeds([Figure(value, (value - 0.98, value + 0.98), 100) for value in seeds]).ci95  # type: ignore[misc]
        covered += low <= 3.0 <= high
    assert covered / 600 >= 0.95


def test_means_over_seeds_stay_within_the_bounds_of_a_share() -> None:
    sure = [Figure(value, (value - 0.01, 1.0), 100) for value in (0.97, 1.0, 1.0)]
    assert across_seeds(sure).ci95[1] == 1.0  # type: ignore[index]
    distances = [Figure(value, (value - 3.0, value + 3.0), 100) for value in (4.0, 9.0, 5.0)]
    assert across_seeds(distances).ci95[1] > 9.0  # type: ignore[index]
