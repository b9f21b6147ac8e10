"""What a picture of the procedural world ``scenes`` holds, and which scene stands at which index.

What belongs here: the vocabulary, the scene graph and its generator, all of them pure. What does not: pixels
(``scene_rendering``), words (``scene_captions``) and the comparison of statements with a scene (``scene_facts``).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

T = TypeVar("T")
RGB = tuple[int, int, int]

SHAPES: Final = ("circle", "square", "triangle", "star")
TEXT: Final = "text"  # the shape of an object that is written instead of drawn
SIZES: Final = ("small", "large")
PLACES: Final = ("top left", "top right", "bottom left", "bottom right")  # the fixed order of objects everywhere
STYLES: Final = ("filled", "outlined", "striped")
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

COLOR_RGB: Final[dict[str, RGB]] = {
    "red": (214, 32, 38),
    "orange": (250, 134, 18),
    "yellow": (250, 222, 40),
    "green": (32, 160, 62),
    "blue": (34, 82, 224),
    "purple": (142, 44, 178),
}
BACKGROUND_RGB: Final[dict[str, RGB]] = {
    "white": (250, 250, 250),
    "black": (16, 16, 16),
    "gray": (164, 164, 164),
    "pink": (255, 178, 204),
    "cyan": (150, 236, 242),
    "brown": (92, 58, 34),
}
COLORS: Final = tuple(COLOR_RGB)
BACKGROUNDS: Final = tuple(BACKGROUND_RGB)

MAX_OBJECTS: Final = 3  # that the generator draws; a reading of a picture may hold four, one in each place
MAX_OFFSET: Final = 0.9 / 32  # of the picture's side: the largest object still ends within its own quadrant
KEY_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object. ``text`` is its one to three capital letters where ``shape`` is "text", else empty.

    ``offset`` moves it from the middle of its quadrant by (x, y) in shares of the picture's side; it is no fact, and
    two objects that differ in nothing else are equal.
    """

    shape: str
    color: str
    size: str
    place: str
    style: str = "filled"
    text: str = ""
    offset: tuple[float, float] = field(default=(0.0, 0.0), compare=False)

    def __post_init__(self) -> None:
        _require("shape", self.shape, (*SHAPES, TEXT))
        _require("color", self.color, COLORS)
        _require("size", self.size, SIZES)
        _require("place", self.place, PLACES)
        _require("style", self.style, STYLES)
        is_word = 1 <= len(self.text) <= 3 and all(letter in LETTERS for letter in self.text)
        if is_word != (self.shape == TEXT) or (self.text and not is_word):
            raise ValueError(f"text={self.text!r} with shape={self.shape!r}: give A-Z, one to three, to 'text' alone")
        if max(map(abs, self.offset)) > MAX_OFFSET:
            raise ValueError(f"offset={self.offset}: at most {MAX_OFFSET:.4f} of the picture's side either way")


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene graph: at most one object in each place, always held in the order of ``PLACES``, and a background.

    The generator draws one to three objects; a judge's reading of a picture may hold none or four.
    """

    objects: tuple[SceneObject, ...]
    background: str

    def __post_init__(self) -> None:
        _require("background", self.background, BACKGROUNDS)
        places = [item.place for item in self.objects]
        if len(set(places)) < len(places):
            raise ValueError(f"objects share a place: {places}; give each object a place of its own")
        object.__setattr__(self, "objects", tuple(sorted(self.objects, key=lambda item: PLACES.index(item.place))))

    @property
    def main(self) -> SceneObject:
        """The main subject: the largest object, the first in the order of places among equals."""
        if not self.objects:
            raise ValueError("a scene without objects has no main subject")
        return max(self.objects, key=lambda item: SIZES.index(item.size))


@dataclass(frozen=True, slots=True)
class SceneOptions:
    """What the world may hold beyond its fixed core: styles other than filled, and letters drawn as an object."""

    style: bool = False
    text: bool = False


PLAIN: Final = SceneOptions()


def scene_for(index: int, seed: int, options: SceneOptions = PLAIN) -> Scene:
    """The scene at ``index`` >= 0 of the world ``seed``.

    Number of objects, their places, shapes, colours, sizes and the background are uniform and independent. Options
    change only what they name: one object in five becomes text, the others have each style equally often.
    """
    if index < 0:
        raise ValueError(f"index={index}: scenes are numbered from 0")
    rng = random.Random(f"scenes/{seed}/{index}/graph")
    num_objects = 1 + int(rng.random() * MAX_OBJECTS)
    background = pick(rng, BACKGROUNDS)
    places = sorted(PLACES, key=lambda _: rng.random())[:num_objects]
    plain = [(pick(rng, SHAPES), pick(rng, COLORS), pick(rng, SIZES), place, _offset(rng)) for place in places]
    objects: list[SceneObject] = []
    for shape, color, size, place, offset in plain:
        style = pick(rng, STYLES) if options.style else "filled"
        text = _word(rng) if options.text and rng.random() < 0.2 else ""
        if text:
            shape, style = TEXT, "filled"
        objects.append(SceneObject(shape, color, size, place, style, text, offset))
    return Scene(tuple(objects), background)


def key_for(index: int) -> str:
    """The key of a row, for example ``000000123``."""
    return f"{index:0{KEY_DIGITS}d}"


def index_of(key: str) -> int:
    """The index that :func:`key_for` wrote into ``key``; ValueError where it did not write it."""
    if not (key.isascii() and key.isdigit() and len(key) >= KEY_DIGITS):
        raise ValueError(f"key {key!r} is not one of the scenes world: expected at least {KEY_DIGITS} digits")
    return int(key)


def pick(rng: random.Random, values: Sequence[T]) -> T:
    """One of ``values``, drawn through ``random()`` alone, the one method whose sequence Python never changes."""
    return values[int(rng.random() * len(values))]


def _offset(rng: random.Random) -> tuple[float, float]:
    return (2 * rng.random() - 1) * MAX_OFFSET, (2 * rng.random() - 1) * MAX_OFFSET


def _word(rng: random.Random) -> str:
    return "".join(pick(rng, LETTERS) for _ in range(1 + int(rng.random() * 3)))


def _require(field_name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field_name}={value!r}: expected one of {', '.join(allowed)}")
