import numpy as np
import pytest

from components.data.image_statistics import detail_ratios, psnr


def noise(number: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, 16, 16, 3)).astype(np.uint8)


def test_psnr_is_that_of_the_mean_squared_error() -> None:
    originals = np.full((2, 8, 8, 3), 100, np.uint8)
    decoded = originals + np.array([0, 5], np.uint8)[:, None, None, None]
    np.testing.assert_allclose(psnr(decoded, originals), [100, 10 * np.log10(255**2 / 25)])


def test_a_blurred_picture_has_lost_detail_and_a_noisy_one_has_too_much() -> None:
    originals = noise()
    blurred = ((originals.astype(int) + np.roll(originals, 1, 1) + np.roll(originals, 1, 2)) // 3).astype(np.uint8)
    noisy = np.where(np.random.default_rng(1).random(originals.shape) < 0.5, 0, 255).astype(np.uint8)
    np.testing.assert_allclose(detail_ratios(originals, originals), 1)
    assert (detail_ratios(blurred, originals) < 0.6).all()
    assert (detail_ratios(noisy, originals) > 1.5).all()


def test_slow_changes_are_no_detail() -> None:
    ramp = np.broadcast_to(np.arange(0, 128, 8, dtype=np.uint8)[None, :, None, None], (2, 16, 16, 3)).copy()
    brighter = (ramp + 20).astype(np.uint8)
    np.testing.assert_allclose(detail_ratios(brighter, ramp), 1)


def test_plain_pictures_have_no_detail_to_keep() -> None:
    originals = np.concatenate([np.full((1, 16, 16, 3), 50, np.uint8), noise(2)])
    assert detail_ratios(originals, originals).shape == (2,)


def test_pictures_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="must both be"):
        psnr(noise(3), noise(2))
    with pytest.raises(ValueError, match="must both be"):
        detail_ratios(noise(2).astype(np.float32), noise(2))
