"""How near a picture is to its original, how much fine detail it keeps, whether there is anything to see. numpy alone.

What belongs here: measures of pictures by themselves, and between one and its own original. What does not: distances
between sets of pictures (``components.evaluation``).
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


def detail_ratio(decoded: np.ndarray, originals: np.ndarray) -> float:
    """Energy above 0.25 cycles per pixel of all decoded pictures over that of their originals.

    1 is as sharp as the originals, below 1 is blurred, above 1 has added detail or noise; 1 too where neither has any.
    Both uint8 (N, H, W, 3).
    """
    _check_pair(decoded, originals)
    ours, theirs = detail_energy(decoded).sum(), detail_energy(originals).sum()
    return float(ours / theirs) if theirs > 0 else float(1 + ours)


def detail_ratios(decoded: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """:func:`detail_ratio` of each picture, float64 (N,) or shorter: pictures without any detail are left out."""
    _check_pair(decoded, originals)
    ours, theirs = detail_energy(decoded), detail_energy(originals)
    has_detail = theirs > 1e-9
    return ours[has_detail] / theirs[has_detail]


def detail_energy(pixels: np.ndarray) -> np.ndarray:
    """Spectral energy above 0.25 cycles per pixel of each picture, float64 (N,); uint8 (N, H, W, 3)."""
    _, height, width, _ = pixels.shape
    spectrum = np.abs(np.fft.fft2(pixels.astype(np.float64) / 255, axes=(1, 2))) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    return spectrum[:, frequency > _DETAIL_FREQUENCY].sum(axis=(1, 2)) / (height * width) ** 2


def sample_figures(pixels: np.ndarray) -> dict[str, float]:
    """Whether sample pictures are more than one flat colour, and more than one picture; uint8 (N, H, W, 3), N >= 1.

    ``sample_contrast``: the mean deviation of values within a picture; ``sample_variety``, where there are two pictures
    or more: the mean deviation of a value between them. Both in steps of 255.
    """
    values = pixels.astype(np.float64)
    figures = {"sample_contrast": float(values.std(axis=(1, 2)).mean())}
    if len(values) > 1:
        figures["sample_variety"] = float(values.std(axis=0).mean())
    return figures


def _check_pair(decoded: np.ndarray, originals: np.ndarray) -> None:
    if (
        decoded.shape != originals.shape
        or decoded.ndim != 4
        or decoded.dtype != np.uint8
        or originals.dtype != np.uint8
    ):
        raise ValueError(
            f"decoded {decoded.dtype} {decoded.shape} and originals {originals.dtype} {originals.shape} must both be "
            "uint8 (N, H, W, 3)"
        )
