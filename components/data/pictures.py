"""Pictures as people look at them: grids, grids with captions, and pictures inside a page.

What belongs here: arranging uint8 arrays with Pillow. What does not: curves and bars (``components.evaluation.plots``),
decoding of stored pictures (``components.data.pixels``) and drawing of scenes (``components.data.scene_rendering``).
"""

import base64
import io
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER, INK = (255, 255, 255), (32, 33, 36)
GAP = 2  # pixels between pictures, before scaling
_FONT_SIZE, _LINE_HEIGHT = 11, 14


def grid(pixels: np.ndarray, columns: int = 8, scale: int = 1, gap: int = GAP) -> Image.Image:
    """Pictures side by side in rows of ``columns``, white between them.

    ``pixels``: uint8 (N, H, W, 3), N >= 1. Each pixel becomes ``scale`` x ``scale`` pixels, without smoothing, so that
    a small picture is shown as it is.
    """
    cells = [picture_of(one, scale) for one in _checked(pixels)]
    return _arranged(cells, columns, gap * scale)


def captioned_grid(
    pixels: np.ndarray, captions: Sequence[str], columns: int = 4, scale: int = 4, gap: int = GAP
) -> Image.Image:
    """Like :func:`grid`, with a caption under each picture, broken into as many lines as the longest one needs."""
    checked = _checked(pixels)
    if len(captions) != len(checked):
        raise ValueError(f"{len(captions)} captions for {len(checked)} pictures; give one caption per picture")
    pictures = [picture_of(one, scale) for one in checked]
    font = ImageFont.load_default(_FONT_SIZE)
    width = max(pictures[0].width, 96)
    characters = max(8, int(width / (font.getlength("abcdefghij klmnop") / 17)))
    wrapped = [textwrap.wrap(_printable(caption), characters) or [""] for caption in captions]
    height = pictures[0].height + _LINE_HEIGHT * max(map(len, wrapped)) + 4
    cells = []
    for picture, lines in zip(pictures, wrapped, strict=True):
        cell = Image.new("RGB", (width, height), PAPER)
        cell.paste(picture, ((width - picture.width) // 2, 0))
        draw = ImageDraw.Draw(cell)
        for number, line in enumerate(lines):
            draw.text((2, picture.height + 2 + number * _LINE_HEIGHT), line, fill=INK, font=font)
        cells.append(cell)
    return _arranged(cells, columns, gap * scale)


def picture_of(pixels: np.ndarray, scale: int = 1) -> Image.Image:
    """One picture, uint8 (H, W, 3), with each pixel drawn ``scale`` x ``scale``."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if scale == 1:
        return picture
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as PNG, without time stamps: the same pixels give the same bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(picture: Image.Image) -> str:
    """The picture as a ``data:image/png;base64,`` URI, for pages and markdown that must stand alone."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(picture)).decode("ascii")


def _arranged(cells: Sequence[Image.Image], columns: int, gap: int) -> Image.Image:
    if columns < 1:
        raise ValueError(f"columns={columns}: a grid has at least one column")
    width, height = cells[0].size
    columns = min(columns, len(cells))
    num_rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * width + (columns - 1) * gap, num_rows * height + (num_rows - 1) * gap), PAPER)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        sheet.paste(cell, (column * (width + gap), row * (height + gap)))
    return sheet


def _checked(pixels: np.ndarray) -> np.ndarray:
    pixels = np.asarray(pixels)
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or not len(pixels):
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}; expected uint8 (N, H, W, 3) with N >= 1")
    return pixels


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
