"""Pictures of scenes: anti-aliased, from distance functions, many at a time.

What belongs here: shapes, strokes of letters, styles, and PNG bytes. What does not: which objects a scene holds.

Notation: x (M, 1, h) and y (M, h, 1) are pixels from the middle of each of M objects, y downwards; r (M, 1, 1) is the
object's radius in pixels. A distance is negative within the shape and exact along its edges. Every object lies within
its own quadrant, so each one is drawn on a tile of half the picture's side, h.
"""

import io
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from components.data.scene_graph import BACKGROUND_RGB, COLOR_RGB, PLACES, TEXT, Scene, SceneObject

RADIUS = {"small": 4.7 / 32, "large": 6.9 / 32}  # of the picture's side
MIN_RESOLUTION = 16

_BATCH = 128  # scenes drawn at once, so that their distances stay within the processor's cache
_OUTLINE = 1.3 / 32  # width of an outline, of the picture's side
_RIM = 0.7 / 32  # width of the outline round stripes
_STRIPES = 4.0 / 32  # a stripe and its gap
_STROKE = 1.0  # width of a letter's stroke, on its grid
_LETTER_STEP = 3.3  # from letter to letter, on the grid

# Each letter's strokes on a grid 2 wide and 4 high: points as the digits x and y, polylines parted by blanks.
_STROKES = {
    "A": "0401102124 0222",
    "B": "040010211202 12231404",
    "C": "211001031423",
    "D": "00102123140400",
    "E": "20000424 0212",
    "F": "200004 0212",
    "G": "2110010314232212",
    "H": "0004 2024 0222",
    "I": "1014 0020 0424",
    "J": "20231403",
    "K": "0004 200224",
    "L": "000424",
    "M": "0400122024",
    "N": "04002420",
    "O": "10010314232110",
    "P": "040010211202",
    "Q": "10010314232110 1324",
    "R": "040010211202 1224",
    "S": "200002222404",
    "T": "0020 1014",
    "U": "0003142320",
    "V": "001420",
    "W": "0004122420",
    "X": "0024 2004",
    "Y": "001220 1214",
    "Z": "00200424",
}


def render(scenes: Sequence[Scene], resolution: int) -> np.ndarray:
    """Pictures of ``scenes``: uint8 (N, resolution, resolution, 3).

    ValueError where the resolution is odd or below 16 pixels.
    """
    check_resolution(resolution)
    pictures = np.empty((len(scenes), resolution, resolution, 3), np.uint8)
    for start in range(0, len(scenes), _BATCH):
        _render_batch(scenes[start : start + _BATCH], pictures[start : start + _BATCH])
    return pictures


def check_resolution(resolution: int) -> None:
    """ValueError unless pictures can be drawn with this side in pixels."""
    if resolution < MIN_RESOLUTION or resolution % 2:
        raise ValueError(f"resolution={resolution}: scenes need an even number of pixels, {MIN_RESOLUTION} or more")


def encode_png(pixels: np.ndarray) -> bytes:
    """One picture, uint8 (H, W, 3), as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _render_batch(scenes: Sequence[Scene], pictures: np.ndarray) -> None:
    resolution = pictures.shape[1]
    half = resolution // 2
    backgrounds = np.array([BACKGROUND_RGB[scene.background] for scene in scenes], np.float32).reshape(-1, 3)
    pictures[:] = backgrounds[:, None, None]
    tiles = pictures.reshape(len(scenes), 2, half, 2, half, 3)
    drawn = [(item, row) for row, scene in enumerate(scenes) for item in scene.objects]
    for shape in sorted({item.shape for item, _ in drawn}):
        objects = [item for item, _ in drawn if item.shape == shape]
        rows = np.array([row for item, row in drawn if item.shape == shape])
        places = np.array([PLACES.index(item.place) for item in objects])
        ground = backgrounds[rows][:, None, None]  # (M, 1, 1, 3)
        ink = np.array([COLOR_RGB[item.color] for item in objects], np.float32)[:, None, None]
        coverage = _coverage(shape, objects, resolution)[..., None]  # (M, h, h, 1)
        tiles[rows, places // 2, :, places % 2] = (ground + coverage * (ink - ground) + 0.5).astype(np.uint8)


def _coverage(shape: str, objects: Sequence[SceneObject], resolution: int) -> np.ndarray:
    """How much of each pixel of an object's tile the object covers: float32 (M, h, h) in [0, 1]."""
    half = resolution // 2
    centre = np.array([item.offset for item in objects], np.float32) * resolution + half / 2
    grid = np.arange(half, dtype=np.float32) + 0.5
    x = grid[None, None, :] - centre[:, 0, None, None]
    y = grid[None, :, None] - centre[:, 1, None, None]
    r = np.array([RADIUS[item.size] for item in objects], np.float32)[:, None, None] * resolution
    if shape == TEXT:
        rows = zip(objects, x, y, r, strict=True)
        distance = np.stack([_word_distance(item.text, *place) for item, *place in rows])
    else:
        distance = _DISTANCES[shape](x, y, r)
    _apply_styles(distance, [item.style for item in objects], x + y, resolution)
    return np.clip(0.5 - distance, 0.0, 1.0)


def _apply_styles(distance: np.ndarray, styles: Sequence[str], diagonal: np.ndarray, resolution: int) -> None:
    """Hollow or stripe the shapes in place; ``diagonal``: x + y (M, h, h)."""
    for number, style in enumerate(styles):
        if style == "outlined":
            distance[number] = np.maximum(distance[number], -distance[number] - _OUTLINE * resolution)
        elif style == "striped":
            period = _STRIPES * resolution
            stripes = np.abs((diagonal[number] / math.sqrt(2) + period / 2) % period - period / 2) - period / 4
            rim = -distance[number] - _RIM * resolution
            distance[number] = np.maximum(distance[number], np.minimum(stripes, rim))


# ----------------------------------------------------------------------------------------------------------- distances
# The radii of the shapes differ so that their areas look alike; each is centred on the middle of its bounding box.
def _circle(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y) - r


def _square(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.86 * r


def _triangle(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Equilateral, tip upwards: the farthest of three sides, each half a circumradius from the centroid."""
    circumradius = 1.14 * r
    y = y - circumradius / 4
    return np.maximum(y, _cos(30) * np.abs(x) - y / 2) - circumradius / 2


def _star(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Pentagram, tip upwards: a point lies within unless it is beyond two of the five lines that join the tips."""
    tip_radius = 1.05 * r
    y = y - tip_radius * (1 - _cos(36)) / 2
    normals = [(math.sin(math.radians(72 * tip)), -_cos(72 * tip)) for tip in range(5)]
    lines = [normal_x * x + normal_y * y for normal_x, normal_y in normals]
    farthest, second = np.maximum(lines[0], lines[1]), np.minimum(lines[0], lines[1])
    for line in lines[2:]:
        second = np.maximum(second, np.minimum(farthest, line))
        farthest = np.maximum(farthest, line)
    return second - tip_radius * _cos(72)


def _word_distance(text: str, x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Distance (h, h) to the strokes of one object's letters, fitted into a square of side 2 r."""
    width = 2 + _LETTER_STEP * (len(text) - 1)
    scale = 2 * r / (max(width, 4) + _STROKE)
    x, y = x / scale + width / 2, y / scale + 2
    nearest = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf, np.float32)
    for position, letter in enumerate(text):
        for stroke in _STROKES[letter].split():
            points = [(int(stroke[i]) + _LETTER_STEP * position, int(stroke[i + 1])) for i in range(0, len(stroke), 2)]
            for (x0, y0), (x1, y1) in itertools.pairwise(points):
                dx, dy = x1 - x0, y1 - y0
                along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
                nearest = np.minimum(nearest, np.hypot(x - x0 - along * dx, y - y0 - along * dy))
    return (nearest - _STROKE / 2) * scale


def _cos(degrees: float) -> float:
    return math.cos(math.radians(degrees))


_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
}
