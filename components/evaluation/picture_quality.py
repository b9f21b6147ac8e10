"""How near a decoded picture is to the one that was encoded, and how much fine detail it keeps.

What belongs here: measures between a picture and its own original. What does not: distances between sets (``fid``).
"""

import numpy as np

_DETAIL_FREQUENCY = 0.25  # cycles per pixel: the upper half of what a picture can hold


def psnr(decoded: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each picture, float64 (N,); 100 dB at most, reached where nothing differs.

    Both uint8 (N, H, W, 3), in the same order.
    """
    _check_pair(decoded, originals)
    squared = (decoded.astype(np.float64) - originals.astype(np.float64)) ** 2
    error = squared.reshape(len(decoded), -1).mean(axis=1)
    return np.minimum(100.0, 10 * np.log10(255.0**2 / np.maximum(error, 1e-12)))


def detail_ratios(decoded: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Spectral energy above 0.25 cycles per pixel of each decoded picture over that of its original, float64 (N,).

    1 is as sharp as the original, below 1 is blurred, above 1 adds detail or noise. Pictures without any detail (a
    plain surface) are left out, so the result may be shorter than N.
    """
    _check_pair(decoded, originals)
    ours, theirs = _detail_energy(decoded), _detail_energy(originals)
    has_detail = theirs > 1e-9
    return ours[has_detail] / theirs[has_detail]


def _detail_energy(pixels: np.ndarray) -> np.ndarray:
    _, height, width, _ = pixels.shape
    spectrum = np.abs(np.fft.fft2(pixels.astype(np.float64) / 255, axes=(1, 2))) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    return spectrum[:, frequency > _DETAIL_FREQUENCY].sum(axis=(1, 2)) / (height * width) ** 2


def _check_pair(decoded: np.ndarray, originals: np.ndarray) -> None:
    is_uint8 = decoded.dtype == originals.dtype == np.uint8
    if not is_uint8 or decoded.shape != originals.shape or decoded.ndim != 4:
        raise ValueError(
            f"decoded {decoded.dtype} {decoded.shape} and originals {originals.dtype} {originals.shape} must both be "
            "uint8 (N, H, W, 3)"
        )
