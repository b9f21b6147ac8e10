"""A measured number with its 95 % interval and the number of samples it stands on.

What belongs here: how intervals are computed. What does not: what is measured.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Z95 = 1.959963984540054  # two-sided 95 % quantile of the standard normal
_NUM_RESAMPLES = 2_000
_NUM_BLOCKS = 20


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, its 95 % interval (None where none can be given) and how many samples it stands on."""

    value: float
    ci95: tuple[float, float] | None
    num_samples: int


def share(hits: Sequence[bool] | np.ndarray) -> Figure | None:
    """The share of true values, with Wilson's score interval (Wilson 1927); None for no samples."""
    hits = np.asarray(hits, dtype=bool)
    if not hits.size:
        return None
    value = float(hits.mean())
    return Figure(value, _wilson(value, hits.size), int(hits.size))


def clustered_share(hits: Sequence[int] | np.ndarray, totals: Sequence[int] | np.ndarray) -> Figure | None:
    """The share ``sum(hits) / sum(totals)`` where the trials within one picture depend on each other.

    ``hits``, ``totals``: counts per picture, (N,). Wilson's interval over the effective number of trials: the trials
    divided by the design effect, i.e. the ratio estimator's variance over that of independent trials (Korn and Graubard
    1998). Where every trial has the same outcome the effect cannot be seen and pictures are counted instead of trials.
    ``num_samples`` is the number of trials; None where there are none.
    """
    hits, totals = np.asarray(hits, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    hits, totals = hits[totals > 0], totals[totals > 0]
    num_trials, num_clusters = totals.sum(), len(totals)
    if not num_clusters:
        return None
    value = float(hits.sum() / num_trials)
    effective = float(num_clusters)
    if 0 < value < 1 and num_clusters > 1:
        residuals = hits - value * totals
        variance = num_clusters / (num_clusters - 1) * float(residuals @ residuals) / num_trials**2
        independent = value * (1 - value) / num_trials
        effective = float(num_trials / max(1.0, variance / independent))
    return Figure(value, _wilson(value, effective), int(num_trials))


def mean(values: Sequence[float] | np.ndarray, seed: int = 0) -> Figure | None:
    """The mean, with a percentile bootstrap interval (2,000 resamples, seeded); None for no samples."""
    values = np.asarray(values, dtype=np.float64)
    if not values.size:
        return None
    value = float(values.mean())
    if values.size == 1:
        return Figure(value, None, 1)
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, values.size, values.size)].mean() for _ in range(_NUM_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Figure(value, (float(low), float(high)), int(values.size))


def across_seeds(figures: Sequence[Figure]) -> Figure:
    """The mean of one figure over trainings with different seeds that were measured on the same samples.

    The samples are shared, so their error does not average out: below and above, the interval reaches as far as the
    root of two squares, the mean of the seeds' own reaches and Student's 95 % quantile times the standard error of the
    seeds' mean. The spread holds sampling noise too, so the interval is rather too wide than too narrow. Where no
    seed's own interval leaves 0 to 1, as with shares, the mean's does not. ``num_samples`` is one seed's, and one seed
    keeps its own interval. Raises ValueError for no figures.
    """
    if not figures:
        raise ValueError("no figures to average")
    if len(figures) == 1:
        return figures[0]
    values = np.array([figure.value for figure in figures])
    value = float(values.mean())
    quantile = float(stats.t.ppf(0.975, len(values) - 1))
    spread = quantile * float(values.std(ddof=1)) / math.sqrt(len(values))
    bounds = np.array([figure.ci95 or (figure.value, figure.value) for figure in figures])
    low = value - math.hypot(float((values - bounds[:, 0]).mean()), spread)
    high = value + math.hypot(float((bounds[:, 1] - values).mean()), spread)
    if bounds.min() >= 0:
        low = max(low, 0.0)
        high = min(high, 1.0) if bounds.max() <= 1 else high
    return Figure(value, (low, high), max(figure.num_samples for figure in figures))


def jackknife(
    statistic: Callable[[np.ndarray, np.ndarray], float], num_first: int, num_second: int
) -> tuple[float, float]:
    """A 95 % interval of a statistic of two whole samples, from leaving out one block of rows of each at a time.

    ``statistic`` takes which rows of either sample stay, bool (num_first,) and (num_second,). For distances between
    samples, whose bootstrap is biased because it repeats rows. Up to 20 interleaved blocks of each sample; the
    variances add up (grouped jackknife, Efron and Stein 1981).
    """
    everything, others = np.ones(num_first, dtype=bool), np.ones(num_second, dtype=bool)
    value = statistic(everything, others)
    variance = _block_variance(lambda kept: statistic(kept, others), num_first)
    variance += _block_variance(lambda kept: statistic(everything, kept), num_second)
    half = Z95 * math.sqrt(variance)
    return value - half, value + half


def paired_jackknife(statistic: Callable[[np.ndarray], float], num_pairs: int) -> tuple[float, float]:
    """Like :func:`jackknife` where row i of both samples is the same thing: a block of pairs is left out at a time.

    ``statistic`` takes which pairs stay, bool (num_pairs,). What both samples share cancels, so that the interval is
    that of their difference.
    """
    value = statistic(np.ones(num_pairs, dtype=bool))
    half = Z95 * math.sqrt(_block_variance(statistic, num_pairs))
    return value - half, value + half


def _block_variance(statistic: Callable[[np.ndarray], float], num_rows: int) -> float:
    num_blocks = min(_NUM_BLOCKS, num_rows)
    block = np.arange(num_rows) % num_blocks
    values = np.array([statistic(block != left_out) for left_out in range(num_blocks)])
    return float((num_blocks - 1) / num_blocks * ((values - values.mean()) ** 2).sum())


def _wilson(value: float, num_trials: float) -> tuple[float, float]:
    shrink = 1 + Z95**2 / num_trials
    centre = (value + Z95**2 / (2 * num_trials)) / shrink
    half = Z95 / shrink * math.sqrt(value * (1 - value) / num_trials + Z95**2 / (4 * num_trials**2))
    low = 0.0 if value == 0 else max(0.0, centre - half)
    high = 1.0 if value == 1 else min(1.0, centre + half)
    return low, high
