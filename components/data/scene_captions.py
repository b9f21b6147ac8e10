"""Captions of scenes: the true short and descriptive ones, and raw ones as the web writes them.

What belongs here: sentences. What does not: which statements are true of a scene (``scene_facts``).
"""

import bisect
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal, get_args

from components.data.scene_facts import Facts, Relation, StatedObject, facts_of, stated_of
from components.data.scene_graph import (
    BACKGROUNDS,
    COLORS,
    LETTERS,
    PLACES,
    SHAPES,
    SIZES,
    STYLES,
    TEXT,
    Scene,
    SceneObject,
    pick,
)

Noise = Literal["low", "web", "high"]
RawKind = Literal["full", "main", "partial", "wrong", "irrelevant"]
PromptKind = Literal["short", "descriptive"]

# How raw captions come about, in per cent of the rows.
# full: every fact. main: the main object alone, with a colour in 50 %, a size in 30 %, a place in 30 %.
# partial: some objects with some of their facts, all true. wrong: as partial, but one fact is replaced by one that
# nothing in the picture has. irrelevant: file names, adverts, dates.
NOISE: Final[dict[Noise, dict[RawKind, int]]] = {
    "low": {"full": 55, "main": 20, "partial": 15, "wrong": 5, "irrelevant": 5},
    "web": {"full": 0, "main": 40, "partial": 25, "wrong": 15, "irrelevant": 20},
    "high": {"full": 0, "main": 25, "partial": 10, "wrong": 25, "irrelevant": 40},
}


# ----------------------------------------------------------------------------------------------------------- the truth
def dsc(scene: Scene) -> str:
    """The descriptive caption: every object with all its attributes in the order of places, and the background.

    For example ``large red circle top left, small blue star bottom right, on a gray background``; a style other than
    filled stands between size and colour, a text as ``large red text "ab" top left``.
    """
    objects = [f"{_noun_phrase(item)} {item.place}" for item in scene.objects]
    return ", ".join([*objects, f"on a {scene.background} background"])


def ssc(scene: Scene) -> str:
    """The short caption: the main subject alone, for example ``large red circle``."""
    return _noun_phrase(scene.main)


def freely_phrased(scene: Scene, index: int, seed: int) -> str:
    """All that :func:`dsc` says, in words and an order that no template fixes; ``index`` and ``seed`` choose them.

    For example ``a circle (large red) in the upper left and tiny blue star bottom right against a grey backdrop``.
    """
    return _phrase(random.Random(f"scenes/{seed}/{index}/free"), replace(facts_of(scene), relations=(), count=None))


def prompts(kind: PromptKind, scenes: Sequence[Scene]) -> list[str]:
    """A prompt for each scene: ``short`` names the main subject, ``descriptive`` everything."""
    if kind not in get_args(PromptKind):
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(get_args(PromptKind))}")
    return [ssc(scene) if kind == "short" else dsc(scene) for scene in scenes]


def prompt_facts(kind: PromptKind, scene: Scene) -> Facts:
    """What a picture must show to follow :func:`prompts`.

    A descriptive prompt names every object, so it also states their number and how they lie to each other; a short one
    states nothing but its subject.
    """
    if kind == "descriptive":
        return facts_of(scene)
    return Facts((replace(stated_of(scene.main), place=None),))


def relation_prompt(scene: Scene) -> tuple[str, Facts] | None:
    """A prompt that says how two objects lie to each other and nothing of their places, and what it states.

    For example ``large red circle left of small blue star``. None for a scene whose objects cannot be told apart by
    their words.
    """
    rng = random.Random(f"relation/{dsc(scene)}")
    related = [
        (name, first, second)
        for name, first, second in facts_of(scene).relations
        if name in ("left of", "above") and _noun_phrase(scene.objects[first]) != _noun_phrase(scene.objects[second])
    ]
    if not related:
        return None
    name, first, second = pick(rng, related)
    items = (scene.objects[first], scene.objects[second])
    stated = tuple(replace(stated_of(item), place=None) for item in items)
    return f"{_noun_phrase(items[0])} {name} {_noun_phrase(items[1])}", Facts(stated, relations=((name, 0, 1),))


def _noun_phrase(item: SceneObject) -> str:
    style = "" if item.style == "filled" else f"{item.style} "
    noun = f'{TEXT} "{item.text.lower()}"' if item.shape == TEXT else item.shape
    return f"{item.size} {style}{item.color} {noun}"


# ------------------------------------------------------------------------------------------------------- raw captions
def raw_caption(scene: Scene, index: int, seed: int, noise: Noise = "web") -> str:
    """What the web might have written beside the picture at ``index`` of the world ``seed``."""
    kind = raw_kind(index, seed, noise)
    rng = random.Random(f"scenes/{seed}/{index}/caption")
    if kind == "irrelevant":
        return pick(rng, _IRRELEVANT)(rng)
    if kind == "main":
        stated = _keep(rng, stated_of(scene.main), {"color": 0.5, "size": 0.3, "place": 0.3, "style": 0.5})
        facts = Facts((stated,))
        if not stated.text and rng.random() < 0.1:
            return _slug(rng, stated)
    elif kind == "full":
        facts = replace(facts_of(scene), relations=(), count=None)
    else:
        facts = _some(rng, scene, with_relation=kind == "partial")
    if kind == "wrong":
        facts = _falsify(rng, facts, scene)
    return _dress(rng, _phrase(rng, facts))


def raw_kind(index: int, seed: int, noise: Noise) -> RawKind:
    """Which kind of raw caption the row at ``index`` has; ValueError for an unknown noise."""
    if noise not in NOISE:
        raise ValueError(f"noise={noise!r}: expected one of {', '.join(NOISE)}")
    drawn = random.Random(f"scenes/{seed}/{index}/kind").random() * 100
    kinds = NOISE[noise]
    return list(kinds)[bisect.bisect_right(list(itertools.accumulate(kinds.values())), drawn)]


def _keep(rng: random.Random, stated: StatedObject, chances: dict[str, float]) -> StatedObject:
    return replace(stated, **{name: None for name, chance in chances.items() if rng.random() >= chance})


def _some(rng: random.Random, scene: Scene, *, with_relation: bool) -> Facts:
    """Some facts of a scene, never all of them."""
    everything = facts_of(scene)
    kept = [number for number in range(len(everything.objects)) if rng.random() < 0.7] or [0]
    chances = {"color": 0.7, "size": 0.5, "place": 0.5, "style": 0.6}
    objects = [_keep(rng, everything.objects[number], chances) for number in kept]
    relations: tuple[Relation, ...] = ()
    if with_relation and len(kept) > 1 and rng.random() < 0.3:
        true = [name for name, first, second in everything.relations if [first, second] == kept[:2]]
        relations = ((pick(rng, true), 0, 1),)
        objects[:2] = [replace(stated, place=None) for stated in objects[:2]]
    background = scene.background if rng.random() < 0.4 else None
    count = len(scene.objects) if rng.random() < 0.15 and not relations else None
    facts = Facts(tuple(objects), background, relations, count)
    if facts.objects == everything.objects:
        facts = replace(facts, background=None)
    return facts


def _falsify(rng: random.Random, facts: Facts, scene: Scene) -> Facts:
    """The same facts, one of them replaced by a value that nothing in the scene has."""
    wrong: list[Facts] = []
    for number, stated in enumerate(facts.objects):
        for name, value in stated.stated().items():
            if value == TEXT:
                continue
            present = {getattr(item, name) for item in scene.objects}
            if free := [other for other in _VALUES.get(name, ()) if other not in present]:
                objects = list(facts.objects)
                objects[number] = replace(stated, **{name: pick(rng, free)})
                wrong.append(replace(facts, objects=tuple(objects)))
    if facts.background:
        free = [other for other in BACKGROUNDS if other != facts.background]
        wrong.append(replace(facts, background=pick(rng, free)))
    return pick(rng, wrong)


_VALUES = {
    "shape": SHAPES,
    "color": COLORS,
    "size": SIZES,
    "place": PLACES,
    "style": STYLES[1:],
    "text": tuple(LETTERS),
}


# ------------------------------------------------------------------------------------------------------------ phrasing
_SIZE_WORDS = {"large": ("large", "large", "big", "huge"), "small": ("small", "small", "little", "tiny")}
_COLOR_WORDS = {"gray": ("gray", "grey"), "purple": ("purple", "purple", "violet")}
_ROW_WORDS = {"top": ("top", "top", "upper"), "bottom": ("bottom", "bottom", "lower")}
_PLACE_FORMS = ("{}", "{}", "in the {}", "at the {}", "in the {} corner", "({})")
_COUNT_WORDS = {1: ("one shape", "1 object"), 2: ("two shapes", "2 shapes"), 3: ("three shapes", "3 geometric shapes")}
_BACKGROUND_FORMS = (
    "{0} on a {1} background",
    "{0} on {1}",
    "{0}, {1} background",
    "{0} against a {1} backdrop",
    "{1} background, {0}",
)
_JOINTS = (", ", ", ", " and ", " with ", " & ", "; ", " + ")
_OPENINGS = (*[""] * 4, "picture of ", "image of ", "drawing of ", "photo: ", "clip art - ", "vector ")
_ENDINGS = (
    "",
    "",
    "",
    "",
    "",
    " clipart",
    " stock image",
    " - free download",
    " | my portfolio",
    " (copy)",
    " vector art",
)
_STOPS = (*[""] * 6, ".", ".", ".", "!", "...")
_CASES: tuple[Callable[[str], str], ...] = (str.lower, str.lower, str.lower, str.capitalize, str.capitalize, str.title)


def _phrase(rng: random.Random, facts: Facts) -> str:
    phrases = [_object_phrase(rng, stated) for stated in facts.objects]
    if facts.relations:
        name, first, second = facts.relations[0]
        form = "to the {}" if name.endswith("of") and rng.random() < 0.5 else "{}"
        related = f"{phrases[first]} {form.format(name)} {phrases[second]}"
        phrases = [related, *phrases[2:]]
    sentence = pick(rng, _JOINTS).join(phrases)
    if facts.count is not None:
        sentence = f"{pick(rng, _COUNT_WORDS[facts.count])}: {sentence}"
    if facts.background is None:
        return sentence
    color = pick(rng, _COLOR_WORDS.get(facts.background, (facts.background,)))
    forms = (
        "{0} on a {1} background",
        "{0} on {1}",
        "{0}, {1} background",
        "{0} against a {1} backdrop",
        "{1} background, {0}",
    )
    return pick(rng, forms).format(sentence, color)


def _object_phrase(rng: random.Random, stated: StatedObject) -> str:
    size = pick(rng, _SIZE_WORDS[stated.size]) if stated.size else ""
    color = pick(rng, _COLOR_WORDS.get(stated.color, (stated.color,))) if stated.color else ""
    adjectives = " ".join(word for word in (size, stated.style, color) if word)
    noun = f'{TEXT} "{stated.text}"' if stated.text else str(stated.shape)
    form = rng.random()
    if adjectives and form < 0.1:
        phrase = f"{noun} ({adjectives})"
    elif adjectives and form < 0.15:
        phrase = f"{noun} {adjectives}"
    else:
        phrase = f"{adjectives} {noun}".strip()
        if rng.random() < 0.35:
            phrase = f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
    if stated.place is None:
        return phrase
    row, column = stated.place.split()
    place = f"{pick(rng, _ROW_WORDS[row])} {column}"
    if rng.random() < 0.1:
        return f"{place}: {phrase}"
    return f"{phrase} {pick(rng, _PLACE_FORMS).format(place)}"


def _dress(rng: random.Random, sentence: str) -> str:
    """Openings, endings, letter case and punctuation as they come on the web."""
    sentence = f"{pick(rng, _OPENINGS)}{sentence}{pick(rng, _ENDINGS)}"
    if rng.random() < 0.08:
        return sentence.upper()
    return pick(rng, _CASES)(sentence) + pick(rng, _STOPS)


def _slug(rng: random.Random, stated: StatedObject) -> str:
    """A file name that happens to say what the picture shows."""
    words = [stated.size, stated.style, stated.color, stated.shape, stated.place]
    joint = pick(rng, "-_")
    return joint.join(word.replace(" ", joint) for word in words if word) + pick(rng, (".png", ".jpg", ".gif"))


def _digits(rng: random.Random, count: int) -> str:
    return "".join(pick(rng, "0123456789") for _ in range(count))


_MONTHS = ("January", "March", "April", "June", "August", "October", "December")
_IRRELEVANT: tuple[Callable[[random.Random], str], ...] = (
    lambda rng: f"IMG_{_digits(rng, 4)}.JPG",
    lambda rng: f"DSC0{_digits(rng, 4)}.jpg",
    lambda rng: f"image{_digits(rng, 3)}",
    lambda rng: f"Untitled-{_digits(rng, 1)}.png",
    lambda rng: f"Screenshot 20{_digits(rng, 2)}-0{1 + int(rng.random() * 9)}-1{_digits(rng, 1)}",
    lambda rng: f"thumb_{_digits(rng, 6)}_small_file",
    lambda rng: f"Free shipping on orders over ${_digits(rng, 2)}!",
    lambda rng: f"{pick(rng, '2345678')}0% OFF - today only",
    lambda rng: "Buy now and save!",
    lambda rng: "Sign up for our newsletter",
    lambda rng: "Click to enlarge",
    lambda rng: "Black Friday sale, up to " + pick(rng, "567") + "0 % off",
    lambda rng: f"Posted on {pick(rng, _MONTHS)} {1 + int(rng.random() * 28)}, 20{_digits(rng, 2)}",
    lambda rng: f"{1 + int(rng.random() * 28)}/{1 + int(rng.random() * 12)}/20{_digits(rng, 2)}",
    lambda rng: f"Page {_digits(rng, 1)} of {_digits(rng, 2)}",
    lambda rng: f"© 20{_digits(rng, 2)} All rights reserved",
    lambda rng: "Photo by admin",
    lambda rng: "logo",
)
