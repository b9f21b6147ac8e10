import base64
import io

import numpy as np
import pytest
from PIL import Image

from components.data.pictures import captioned_grid, data_uri, grid, picture_of, png_bytes


def pictures(number: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (number, side, side, 3)).astype(np.uint8)


def test_every_picture_stands_unsmoothed_in_its_own_cell() -> None:
    pixels = pictures(5)
    sheet = np.asarray(grid(pixels, columns=3, scale=2, gap=1))
    assert sheet.shape == (2 * 16 + 2, 3 * 16 + 2 * 2, 3)
    np.testing.assert_array_equal(sheet[18:34:2, 18:34:2], pixels[4])  # row 1, column 1
    assert (sheet[18:, 36:] == 255).all()  # the sixth cell is empty


def test_fewer_pictures_than_columns_leave_no_empty_columns() -> None:
    assert grid(pictures(2), columns=8, gap=0).size == (16, 8)


def test_captions_lie_below_their_pictures_and_long_ones_take_more_lines() -> None:
    pixels = pictures(2, 32)
    short = captioned_grid(pixels, ["one", "two"], columns=2)
    long = captioned_grid(
        pixels, ["one", "a much longer caption that takes several lines under its picture"], columns=2
    )
    assert long.height > short.height > 32 * 4
    assert (np.asarray(short)[: 32 * 4, : 32 * 4] == np.asarray(picture_of(pixels[0], 4))).all()
    assert (np.asarray(short)[32 * 4 :] < 128).any()  # ink


def test_captions_may_hold_anything() -> None:
    captioned_grid(pictures(3, 32), ["", "line\nbreak\x00 and \u202e", "日本語 😀"])


def test_a_data_uri_holds_the_same_picture_and_the_same_bytes_each_time() -> None:
    picture = picture_of(pictures(1)[0])
    head, _, body = data_uri(picture).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(body))) as decoded:
        np.testing.assert_array_equal(np.asarray(decoded), pictures(1)[0])
    assert png_bytes(picture) == png_bytes(picture_of(pictures(1)[0]))


@pytest.mark.parametrize(
    "wrong", [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8)]
)
def test_what_is_no_batch_of_pictures_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(N, H, W, 3\)"):
        grid(wrong)


def test_every_picture_needs_a_caption() -> None:
    with pytest.raises(ValueError, match="1 captions for 2 pictures"):
        captioned_grid(pictures(2), ["one"])
