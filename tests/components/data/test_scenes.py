import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from components.contracts import Reader
from components.data.scenes import (
    BACKGROUND_RGB,
    BACKGROUNDS,
    COLOR_RGB,
    COLORS,
    PLACES,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    SceneOptions,
    ScenesReader,
    dsc,
    index_of,
    key_for,
    scene_for,
    ssc,
)

EVERYTHING = SceneOptions(style=True, text=True)


def test_the_world_stays_the_one_that_was_published() -> None:
    assert [dsc(scene_for(index, 0)) for index in (0, 9)] == [
        "small green square top right, small red square bottom right, on a gray background",
        "large red square top left, small red triangle bottom left, small purple star bottom right, "
        "on a pink background",
    ]


def test_a_scene_depends_on_index_and_seed_alone() -> None:
    backwards = [scene_for(index, 3) for index in reversed(range(200))]
    forwards = [scene_for(index, 3) for index in range(200)]
    assert backwards[::-1] == forwards
    assert [o.offset for s in backwards[::-1] for o in s.objects] == [o.offset for s in forwards for o in s.objects]
    assert sum(scene_for(index, 3) == scene_for(index, 4) for index in range(200)) < 10


def test_every_attribute_is_drawn_equally_often() -> None:
    scenes = [scene_for(index, 0) for index in range(6000)]
    objects = [item for scene in scenes for item in scene.objects]
    _assert_uniform([len(scene.objects) for scene in scenes], (1, 2, 3))
    _assert_uniform([scene.background for scene in scenes], BACKGROUNDS)
    for name, values in (("shape", SHAPES), ("color", COLORS), ("size", SIZES), ("place", PLACES)):
        _assert_uniform([getattr(item, name) for item in objects], values)
    assert {item.style for item in objects} == {"filled"}


def test_options_add_styles_and_texts_and_leave_the_rest_alone() -> None:
    pairs = [(scene_for(index, 0), scene_for(index, 0, EVERYTHING)) for index in range(2000)]
    plain = [item for scene, _ in pairs for item in scene.objects]
    rich = [item for _, scene in pairs for item in scene.objects]
    for name in ("color", "size", "place"):
        assert [getattr(item, name) for item in plain] == [getattr(item, name) for item in rich]
    texts = [item for item in rich if item.shape == "text"]
    assert len(texts) / len(rich) == pytest.approx(0.2, abs=0.03)
    assert {len(item.text) for item in texts} == {1, 2, 3}
    _assert_uniform([item.style for item in rich if item.shape != "text"], ("filled", "outlined", "striped"))


def test_objects_stand_in_the_order_of_places_and_the_first_of_the_largest_is_the_main_subject() -> None:
    small = SceneObject("star", "red", "small", "top left")
    late, early = (SceneObject("circle", "blue", "large", place) for place in ("bottom right", "top right"))
    scene = Scene((late, small, early), "white")
    assert scene.objects == (small, early, late)
    assert scene.main == early
    with pytest.raises(ValueError, match="no main subject"):
        _ = Scene((), "white").main


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shape": "cross"}, "shape='cross': expected one of circle"),
        ({"color": "white"}, "color='white': expected one of red"),
        ({"place": "center"}, "place='center'"),
        ({"text": "AB"}, "text='AB' with shape='circle'"),
        ({"shape": "text"}, "text='' with shape='text'"),
        ({"shape": "text", "text": "ABCD"}, "text='ABCD'"),
        ({"offset": (0.1, 0.0)}, "offset="),
    ],
)
def test_an_impossible_object_is_refused_by_name(changed: dict[str, object], message: str) -> None:
    fields = {"shape": "circle", "color": "red", "size": "small", "place": "top left", **changed}
    with pytest.raises(ValueError, match=message):
        SceneObject(**fields)  # pyright: ignore[reportArgumentType]


def test_two_objects_in_one_place_are_refused() -> None:
    item = SceneObject("star", "red", "small", "top left")
    with pytest.raises(ValueError, match="share a place"):
        Scene((item, item), "white")


def test_keys_are_padded_and_read_back() -> None:
    assert key_for(123) == "000000123"
    assert index_of(key_for(123)) == 123
    assert index_of(key_for(10**10)) == 10**10
    with pytest.raises(ValueError, match="key '12a'"):
        index_of("12a")


def test_every_object_colour_is_far_from_every_other_and_from_every_background() -> None:
    colors = np.array([*COLOR_RGB.values()], float)
    backgrounds = np.array([*BACKGROUND_RGB.values()], float)
    assert not set(COLORS) & set(BACKGROUNDS)
    assert np.linalg.norm(colors[:, None] - backgrounds[None], axis=-1).min() > 100
    for palette in (colors, backgrounds):
        distances = np.linalg.norm(palette[:, None] - palette[None], axis=-1)
        assert distances[~np.eye(len(palette), dtype=bool)].min() > 75


# -------------------------------------------------------------------------------------------------------------- reader
def test_shards_hold_every_row_once_and_in_order() -> None:
    reader: Reader = ScenesReader(num_rows=25, rows_per_shard=10, seed=7)
    assert reader.shards() == ["scenes://seed=7/00000", "scenes://seed=7/00001", "scenes://seed=7/00002"]
    rows = [row for shard in range(3) for row in reader.read(shard)]
    assert [index_of(row.key) for row in rows] == list(range(25))
    assert rows[-1].source == "scenes://seed=7/00002#000000024"
    assert {row.license for row in rows} == {"CC0-1.0"}


def test_a_row_carries_a_png_of_its_scene_and_the_true_captions() -> None:
    reader = ScenesReader(num_rows=20, rows_per_shard=10, resolution=64)
    row = list(reader.read(1))[3]
    scene = scene_for(13, 0)
    assert row.image is not None
    picture = Image.open(io.BytesIO(row.image))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (64, 64))
    assert row.extra == {"ssc": ssc(scene), "dsc": dsc(scene)}
    assert row.problem is None


def test_reading_again_gives_the_same_bytes_whatever_the_shards() -> None:
    one = [*ScenesReader(600, 600).read(0)]
    many = [row for shard in range(6) for row in ScenesReader(600, 100).read(shard)]
    assert [(row.key, row.image, row.caption) for row in one] == [(row.key, row.image, row.caption) for row in many]


def test_extras_are_the_same_rows_without_pictures() -> None:
    reader = ScenesReader(30, 30)
    read, extras = [*reader.read(0)], [*reader.extras(0)]
    assert [(row.key, row.caption, row.extra) for row in read] == [(row.key, row.caption, row.extra) for row in extras]
    assert {row.image for row in extras} == {None}


def test_no_two_pictures_are_alike_although_scenes_repeat() -> None:
    rows = [*ScenesReader(2000, 2000).read(0)]
    assert len({row.extra["dsc"] for row in rows}) < 1900
    assert len({hashlib.sha256(row.image or b"").digest() for row in rows}) == 2000


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_rows": 0}, "num_rows=0"),
        ({"noise": "loud"}, "noise='loud': expected one of low, web, high"),
        ({"resolution": 33}, "resolution=33: scenes need an even number"),
    ],
)
def test_a_reader_that_cannot_read_is_refused_at_once(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScenesReader(**{"num_rows": 10, "rows_per_shard": 5, **changed})  # pyright: ignore[reportArgumentType]


def test_a_missing_shard_is_named() -> None:
    with pytest.raises(IndexError, match="has 2 shards, from 0; there is no shard 2"):
        next(ScenesReader(10, 5).read(2))


def _assert_uniform(drawn: list, values: tuple) -> None:
    assert set(drawn) == set(values)
    for value in values:
        assert drawn.count(value) / len(drawn) == pytest.approx(1 / len(values), abs=0.025), value
