import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, CLIPImageProcessorPil

from components.data.pixel_values import PixelNormalization, normalization_of, shifted


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


def test_the_saved_processor_does_what_training_did(pixels, tmp_path):
    normalization = PixelNormalization(16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    normalization.processor().save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    expected = processor([Image.fromarray(one) for one in pixels], return_tensors="pt").pixel_values
    torch.testing.assert_close(normalization(torch.from_numpy(pixels)), expected, atol=1e-5, rtol=1e-5)
    assert normalization_of(processor) == normalization


def test_other_sizes_are_resized(pixels):
    values = PixelNormalization(8)(torch.from_numpy(pixels))
    assert values.shape == (3, 3, 8, 8)
    assert values.abs().max() <= 1


def test_a_processor_without_squares_is_refused():
    processor = CLIPImageProcessorPil(size={"height": 32, "width": 64}, do_center_crop=False)
    with pytest.raises(ValueError, match="square"):
        normalization_of(processor)


def test_shifts_move_each_picture_by_its_own_draw_and_repeat_the_border(pixels):
    draws = np.array([[0.0, 0.5], [0.5, 0.5], [0.99, 0.0]])  # of three moves: -1, 0, +1
    moved = shifted(pixels, draws, 1)
    np.testing.assert_array_equal(moved[0, 1:], pixels[0, :-1])
    np.testing.assert_array_equal(moved[0, 0], pixels[0, 0])
    np.testing.assert_array_equal(moved[1], pixels[1])
    np.testing.assert_array_equal(moved[2, :-1, 1:], pixels[2, 1:, :-1])
    np.testing.assert_array_equal(shifted(pixels, draws, 0), pixels)
