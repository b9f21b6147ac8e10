import itertools

import numpy as np
import pytest

from components.data.scene_graph import (
    BACKGROUND_RGB,
    BACKGROUNDS,
    COLOR_RGB,
    COLORS,
    LETTERS,
    MAX_OFFSET,
    PLACES,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    scene_for,
)
from components.data.scene_rendering import render


@pytest.mark.parametrize("resolution", [32, 64])
def test_every_object_shows_its_colour_in_the_middle_of_its_place(resolution: int) -> None:
    scenes = [scene_for(index, 0) for index in range(1000)]
    pictures = render(scenes, resolution)
    assert pictures.shape == (1000, resolution, resolution, 3)
    assert pictures.dtype == np.uint8
    for scene, picture in zip(scenes, pictures, strict=True):
        for item in scene.objects:
            middle = _tile(picture, item.place)[resolution // 4 - 1 :, resolution // 4 - 1 :][:2, :2].reshape(4, 3)
            assert np.abs(middle - np.array(COLOR_RGB[item.color])).max(axis=1).min() < 24, (scene, item)


def test_an_empty_place_shows_the_background_alone() -> None:
    scenes = [scene_for(index, 0) for index in range(1000)]
    for scene, picture in zip(scenes, render(scenes, 32), strict=True):
        for place in {*PLACES} - {item.place for item in scene.objects}:
            assert (_tile(picture, place) == BACKGROUND_RGB[scene.background]).all()


def test_shapes_and_sizes_differ_in_area_wherever_they_stand() -> None:
    def areas(shape: str, size: str) -> np.ndarray:
        offsets = itertools.product((-MAX_OFFSET, -0.011, 0.0, 0.007, MAX_OFFSET), repeat=2)
        objects = [SceneObject(shape, "blue", size, "top right", offset=offset) for offset in offsets]
        pictures = render([Scene((item,), "white") for item in objects], 32).astype(float)
        ground, ink = (np.array(rgb[name]) for rgb, name in ((BACKGROUND_RGB, "white"), (COLOR_RGB, "blue")))
        return ((pictures - ground) @ (ink - ground) / ((ink - ground) @ (ink - ground))).sum(axis=(1, 2))

    area = {(shape, size): areas(shape, size) for shape in SHAPES for size in SIZES}
    exact = {("circle", "large"): np.pi * 6.9**2, ("square", "small"): (2 * 0.86 * 4.7) ** 2}
    for which, expected in exact.items():
        assert area[which] == pytest.approx(expected, rel=0.03)  # the same anywhere: anti-aliased, nothing cut off
    for shape in SHAPES:
        assert np.ptp(area[shape, "small"]) < 0.06 * area[shape, "small"].mean()
        assert area[shape, "large"].min() > 1.9 * area[shape, "small"].max()
    for size in SIZES:
        assert area["star", size].max() < 0.85 * area["triangle", size].min()
        assert area["triangle", size].max() < 0.85 * area["circle", size].min()


def test_every_shape_and_size_is_nearest_to_its_own_kind() -> None:
    kinds = [*itertools.product(SHAPES, SIZES)]
    steps = np.linspace(-MAX_OFFSET, MAX_OFFSET, 4)
    grid = [(kind, offset) for kind in kinds for offset in itertools.product(steps, repeat=2)]
    templates = _coverage([SceneObject(shape, "red", size, "top left", offset=at) for (shape, size), at in grid])
    drawn = [item for index in range(400) for item in scene_for(index, 5).objects]
    nearest = np.square(_coverage(drawn)[:, None] - templates[None]).sum(axis=(2, 3)).argmin(axis=1)
    assert [grid[number][0] for number in nearest] == [(item.shape, item.size) for item in drawn]


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_pixel_lies_between_background_and_object(background: str) -> None:
    ground = np.array(BACKGROUND_RGB[background], int)
    for color in COLORS:
        objects = [SceneObject(shape, color, "small", place) for shape, place in zip(SHAPES, PLACES, strict=True)]
        picture = render([Scene(tuple(objects), background)], 32)[0].astype(int)
        ink = np.array(COLOR_RGB[color], int)
        assert (picture >= np.minimum(ground, ink)).all()
        assert (picture <= np.maximum(ground, ink)).all()
        assert len({tuple(pixel) for pixel in picture.reshape(-1, 3)}) > 8  # soft edges


def test_styles_change_the_inside_and_keep_the_extent() -> None:
    def masks(style: str) -> np.ndarray:
        return _coverage([SceneObject(shape, "red", "large", "top left", style) for shape in SHAPES], 64)

    filled, outlined, striped = (masks(style) for style in ("filled", "outlined", "striped"))
    for one, other in itertools.combinations((filled, outlined, striped), 2):
        assert (np.abs(one - other).sum(axis=(1, 2)) > 0.1 * filled.sum(axis=(1, 2))).all()
    for styled in (outlined, striped):
        assert (styled <= filled + 1e-6).all()
        assert ((styled > 0.5).any(axis=1) == (filled > 0.5).any(axis=1)).mean() > 0.97
        assert ((styled > 0.5).any(axis=2) == (filled > 0.5).any(axis=2)).mean() > 0.97


def test_letters_are_told_apart_and_words_stay_in_their_place() -> None:
    letters = _coverage([SceneObject("text", "red", "large", "top left", text=letter) for letter in LETTERS], 64)
    gaps = np.abs(letters[:, None] - letters[None]).sum(axis=(2, 3)) / letters.sum(axis=(1, 2)).mean()
    assert gaps[~np.eye(len(LETTERS), dtype=bool)].min() > 0.1
    word = SceneObject("text", "red", "large", "bottom right", text="WMX", offset=(MAX_OFFSET, MAX_OFFSET))
    picture = render([Scene((word,), "white")], 64)[0]
    for place in PLACES[:3]:
        assert (_tile(picture, place) == BACKGROUND_RGB["white"]).all()
    assert (_tile(picture, "bottom right") == COLOR_RGB["red"]).all(axis=-1).sum() > 40


def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    scenes = [scene_for(index, 0) for index in range(300)]
    together = render(scenes, 32)
    for number in (0, 127, 128, 299):
        assert np.array_equal(together[number], render([scenes[number]], 32)[0])
    assert render([], 32).shape == (0, 32, 32, 3)


@pytest.mark.parametrize("resolution", [14, 33, 0])
def test_an_unfit_resolution_is_refused(resolution: int) -> None:
    with pytest.raises(ValueError, match=f"resolution={resolution}: scenes need an even number of pixels, 16 or more"):
        render([scene_for(0, 0)], resolution)


def _tile(picture: np.ndarray, place: str) -> np.ndarray:
    half = picture.shape[0] // 2
    row, column = divmod(PLACES.index(place), 2)
    return picture[row * half : (row + 1) * half, column * half : (column + 1) * half]


def _coverage(objects: list[SceneObject], resolution: int = 32) -> np.ndarray:
    """How far each pixel of the objects' own tiles is from white to their colour: float (N, h, h)."""
    pictures = render([Scene((item,), "white") for item in objects], resolution)
    tiles = np.stack([_tile(picture, item.place) for picture, item in zip(pictures, objects, strict=True)])
    ground = np.array(BACKGROUND_RGB["white"], float)
    ink = np.array([COLOR_RGB[item.color] for item in objects], float) - ground  # (N, 3)
    return np.einsum("nyxc,nc->nyx", tiles - ground, ink) / np.square(ink).sum(axis=1)[:, None, None]
