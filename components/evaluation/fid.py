"""Distances between two sets of pictures, over features of each.

What belongs here: the Frechet and the kernel distance. What does not: the feature extractor; name it beside every
value, because distances over different features cannot be compared.
"""

import numpy as np

from .intervals import Figure, jackknife, paired_jackknife


def frechet_distance(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of two Gaussians (Heusel et al. 2017, equation 6).

    Means (D,), covariances (D, D), float64. C C' has the eigenvalues of C^(1/2) C' C^(1/2), which is symmetric: so the
    trace stays real, also for singular covariances, where ``scipy.linalg.sqrtm(C C')`` turns complex.
    """
    return _distance(mean, covariance, _root(covariance), other_mean, other_covariance)


def fid(features: np.ndarray, reference: np.ndarray) -> Figure:
    """The Frechet distance of two feature sets, (N, D) and (M, D), with a grouped jackknife interval.

    Biased upwards by a term of order D^2 / N: compare only values over equally many samples. Needs three rows of each.
    """
    first, second = _checked(features, reference)
    gaussian, other = _gaussian(first), _gaussian(second)
    root, other_root = _root(gaussian[1]), _root(other[1])

    def statistic(kept: np.ndarray, others: np.ndarray) -> float:
        if others.all():  # the root of the set that stays whole is known
            return _distance(*other, other_root, *_gaussian(first[kept]))
        return _distance(*gaussian, root, *_gaussian(second[others]))

    low, high = jackknife(statistic, len(first), len(second))
    return Figure(_distance(*gaussian, root, *other), (max(0.0, low), high), len(first))


def paired_fid(features: np.ndarray, reference: np.ndarray) -> Figure:
    """:func:`fid` of pictures and their own originals, row by row, (N, D) both: 0 where nothing was changed.

    Pairs are left out together for the interval: the choice of pictures then moves both sets alike and cancels.
    """
    first, second = _checked(features, reference)
    if len(first) != len(second):
        raise ValueError(f"features of {len(first)} pictures and of {len(second)} originals are no pairs")

    def statistic(kept: np.ndarray) -> float:
        gaussian = _gaussian(first[kept])
        return _distance(*gaussian, _root(gaussian[1]), *_gaussian(second[kept]))

    low, high = paired_jackknife(statistic, len(first))
    return Figure(statistic(np.ones(len(first), dtype=bool)), (max(0.0, low), high), len(first))


def kid(features: np.ndarray, reference: np.ndarray) -> Figure:
    """The squared MMD with the kernel (x y / D + 1)^3, unbiased (Binkowski et al. 2018, equation 4), not scaled.

    All pairs of rows are used, so it may be slightly below 0 for equal sets; the interval is a grouped jackknife. Needs
    three rows of each.
    """
    first, second = _checked(features, reference)
    within_first, within_second, between = _kernel(first, first), _kernel(second, second), _kernel(first, second)
    np.fill_diagonal(within_first, 0)
    np.fill_diagonal(within_second, 0)

    def statistic(kept: np.ndarray, others: np.ndarray) -> float:
        x, y = kept.astype(np.float64), others.astype(np.float64)
        n, m = x.sum(), y.sum()
        within = x @ within_first @ x / (n * (n - 1)) + y @ within_second @ y / (m * (m - 1))
        return float(within - 2 * (x @ between @ y) / (n * m))

    value = statistic(np.ones(len(first)), np.ones(len(second)))
    return Figure(value, jackknife(statistic, len(first), len(second)), len(first))


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first @ second.T / first.shape[1] + 1) ** 3


def _gaussian(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rows.mean(axis=0), np.atleast_2d(np.cov(rows, rowvar=False))


def _distance(
    mean: np.ndarray, covariance: np.ndarray, root: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    eigenvalues = np.linalg.eigvalsh(root @ other_covariance @ root)
    trace_of_root = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    difference = mean - other_mean
    spread = np.trace(covariance) + np.trace(other_covariance) - 2 * trace_of_root
    return float(max(0.0, difference @ difference + spread))


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def _checked(features: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for name, rows in (("features", features), ("reference", reference)):
        if rows.ndim != 2 or len(rows) < 3 or rows.shape[1] != features.shape[1]:
            raise ValueError(f"{name} are {rows.shape}; expected (N, {features.shape[-1]}) with N >= 3")
        if not np.isfinite(rows).all():
            raise ValueError(f"{name} hold values that are not finite")
    return features.astype(np.float64), reference.astype(np.float64)
