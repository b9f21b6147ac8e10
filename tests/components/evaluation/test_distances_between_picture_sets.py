import numpy as np
import pytest
import scipy.linalg

from components.evaluation.fid import fid, frechet_distance, kid, paired_fid


def features(number: int, size: int, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(number, size)) @ np.random.default_rng(9).normal(size=(size, size)) + shift


@pytest.mark.reference
def test_equal_covariances_leave_the_squared_distance_of_the_means() -> None:
    # FACTS: dimension 2048, means apart by 1 in each: exactly 2048. The distance is a sum over independent dimensions.
    covariance = np.eye(512)
    mean = np.zeros(512)
    assert 4 * frechet_distance(mean, covariance, mean + 1, covariance) == pytest.approx(2048, abs=1e-6)
    rows = features(400, 16)
    mean, covariance = rows.mean(axis=0), np.cov(rows, rowvar=False)
    assert frechet_distance(mean, covariance, mean + 1, covariance) == pytest.approx(16, abs=1e-3)


@pytest.mark.reference
def test_identical_sets_are_at_distance_zero() -> None:
    rows = features(300, 64)
    assert fid(rows, rows).value == pytest.approx(0, abs=1e-3)


@pytest.mark.reference
def test_the_distance_is_that_of_scipys_matrix_root() -> None:
    first, second = features(500, 24), features(500, 24, 0.5, seed=1) ** 2
    covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = np.trace(scipy.linalg.sqrtm(covariances[0] @ covariances[1])).real
    difference = first.mean(axis=0) - second.mean(axis=0)
    expected = difference @ difference + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root
    assert fid(first, second).value == pytest.approx(expected, rel=1e-6)
    assert fid(second, first).value == pytest.approx(expected, rel=1e-6)


def test_fewer_rows_than_dimensions_still_give_a_distance() -> None:
    rows = features(20, 64)
    assert fid(rows, rows).value == pytest.approx(0, abs=1e-3)
    assert fid(rows, rows + 1).value == pytest.approx(64, rel=1e-3)


def test_fids_interval_narrows_with_more_rows() -> None:
    def width(number: int) -> float:
        figure = fid(features(number, 8, 0.3), features(number, 8, seed=1))
        assert figure.ci95 is not None
        assert figure.ci95[0] < figure.value < figure.ci95[1]
        return figure.ci95[1] - figure.ci95[0]

    assert width(2000) < 0.6 * width(200)


def test_kid_is_the_mean_over_pairs_of_the_cubic_kernel() -> None:
    first, second = features(7, 5), features(6, 5, 0.4, seed=1)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 5 + 1) ** 3)

    within = sum(kernel(x, y) for i, x in enumerate(first) for j, y in enumerate(first) if i != j) / 42
    other = sum(kernel(x, y) for i, x in enumerate(second) for j, y in enumerate(second) if i != j) / 30
    between = sum(kernel(x, y) for x in first for y in second) / 42
    assert kid(first, second).value == pytest.approx(within + other - 2 * between)


def test_kid_of_two_samples_of_one_distribution_is_zero_within_its_interval() -> None:
    rng = np.random.default_rng(3)
    same = kid(rng.normal(size=(500, 16)), rng.normal(size=(500, 16)))
    moved = kid(rng.normal(size=(500, 16)), rng.normal(size=(500, 16)) + 0.3)
    assert same.ci95 is not None
    assert same.ci95[0] < 0 < same.ci95[1]
    assert moved.ci95 is not None
    assert moved.ci95[0] > 0


def test_features_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match=r"reference are \(5, 4\)"):
        fid(features(5, 3), features(5, 4))
    with pytest.raises(ValueError, match=r"features are \(2, 3\).*N >= 3"):
        kid(features(2, 3), features(5, 3))
    broken = features(5, 3)
    broken[2, 1] = np.nan
    with pytest.raises(ValueError, match="reference hold values that are not finite"):
        fid(features(5, 3), broken)


def test_pairs_have_the_same_distance_and_a_narrower_interval() -> None:
    originals = features(400, 8)
    changed = originals + 0.05 * features(400, 8, seed=1)
    paired, unpaired = paired_fid(changed, originals), fid(changed, originals)
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.ci95 is not None
    assert unpaired.ci95 is not None
    assert paired.ci95[0] <= paired.value <= paired.ci95[1]
    assert paired.ci95[1] - paired.ci95[0] < 0.2 * (unpaired.ci95[1] - unpaired.ci95[0])
    with pytest.raises(ValueError, match="399 pictures and of 400 originals are no pairs"):
        paired_fid(changed[1:], originals)
