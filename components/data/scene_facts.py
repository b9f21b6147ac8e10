"""What a text states about a picture of the world ``scenes``, and whether it is true of a scene.

What belongs here: the facts of a scene, their parser, and the comparison that caption accuracy and prompt following
rest on. What does not: writing captions (``scene_captions``) and reading pictures (the attribute judge).
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from components.data.scene_graph import BACKGROUNDS, COLORS, PLACES, SHAPES, SIZES, STYLES, TEXT, Scene, SceneObject

ATTRIBUTES: Final = ("shape", "color", "size", "place", "style", "text")

RELATIONS: Final = ("left of", "right of", "above", "below")
Relation = tuple[str, int, int]  # name, first and second stated object: the first is left of the second


@dataclass(frozen=True, slots=True)
class StatedObject:
    """What is stated of one object, None where nothing is. A scene's ``filled`` is never stated."""

    shape: str | None = None
    color: str | None = None
    size: str | None = None
    place: str | None = None
    style: str | None = None
    text: str | None = None

    def stated(self) -> dict[str, str]:
        """The stated attributes by name."""
        return {name: value for name in ATTRIBUTES if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a text states. ``count`` is a stated number of objects, not the number of ``objects``."""

    objects: tuple[StatedObject, ...] = ()
    background: str | None = None
    relations: tuple[Relation, ...] = ()
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """Which stated facts hold of a scene.

    ``assignment``: for every stated object the number of the scene's object that it was taken for, or None where the
    scene has none left. ``objects``: for every stated object, whether each of its stated attributes holds.
    ``background`` and ``count`` are None where not stated.
    """

    assignment: tuple[int | None, ...]
    objects: tuple[Mapping[str, bool], ...]
    background: bool | None = None
    relations: tuple[bool, ...] = ()
    count: bool | None = None

    def verdicts(self) -> Iterator[tuple[str, bool]]:
        """(attribute, ``background``, ``relation`` or ``count``; whether it holds) for every stated fact."""
        for verdicts in self.objects:
            yield from verdicts.items()
        yield from (("relation", holds) for holds in self.relations)
        if self.background is not None:
            yield "background", self.background
        if self.count is not None:
            yield "count", self.count

    @property
    def holds(self) -> bool:
        """Whether every stated fact holds (so it does where nothing is stated)."""
        return all(holds for _, holds in self.verdicts())


def facts_of(scene: Scene) -> Facts:
    """All facts of a scene: its objects in order, background, number of objects, and every relation that holds."""
    objects = tuple(stated_of(item) for item in scene.objects)
    pairs = itertools.permutations(range(len(objects)), 2)
    relations = tuple(
        (name, first, second)
        for first, second in pairs
        for name in RELATIONS
        if _is_related(name, scene.objects[first], scene.objects[second])
    )
    return Facts(objects, scene.background, relations, len(objects))


def stated_of(item: SceneObject) -> StatedObject:
    """Everything that is to be stated of one object."""
    style = None if item.style == "filled" else item.style
    return StatedObject(item.shape, item.color, item.size, item.place, style, item.text or None)


def matches(facts: Facts, scene: Scene) -> Match:
    """Which of ``facts`` hold of ``scene``, under the one-to-one assignment of objects under which most hold.

    Of equal assignments the one nearest to the stated order counts. An object that is stated beyond those in the scene
    holds in no attribute. Where some assignment makes every fact true, it is the one chosen.
    """
    held = [[_verdicts(stated, item) for item in scene.objects] for stated in facts.objects]
    scores = [[sum(verdicts.values()) for verdicts in row] for row in held]

    def score(assignment: _Assignment) -> int:
        objects = sum(scores[stated][number] for stated, number in enumerate(assignment) if number is not None)
        return objects + sum(_relations_held(facts, scene, assignment))

    best = max(_assignments(len(facts.objects), len(scene.objects)), key=score)
    return Match(
        assignment=best,
        objects=tuple(
            dict.fromkeys(stated.stated(), False) if number is None else verdicts[number]
            for stated, verdicts, number in zip(facts.objects, held, best, strict=True)
        ),
        background=None if facts.background is None else facts.background == scene.background,
        relations=_relations_held(facts, scene, best),
        count=None if facts.count is None else facts.count == len(scene.objects),
    )


_Assignment = tuple[int | None, ...]


def _assignments(num_stated: int, num_present: int) -> Iterator[_Assignment]:
    if num_stated <= num_present:
        yield from itertools.permutations(range(num_present), num_stated)
        return
    for chosen in itertools.permutations(range(num_stated), num_present):
        numbers = {stated: present for present, stated in enumerate(chosen)}
        yield tuple(numbers.get(stated) for stated in range(num_stated))


def _verdicts(stated: StatedObject, item: SceneObject) -> dict[str, bool]:
    return {name: getattr(item, name) == value for name, value in stated.stated().items()}


def _relations_held(facts: Facts, scene: Scene, assignment: _Assignment) -> tuple[bool, ...]:
    taken = [None if number is None else scene.objects[number] for number in assignment] if facts.relations else []
    return tuple(_is_related(name, taken[first], taken[second]) for name, first, second in facts.relations)


def _is_related(name: str, first: SceneObject | None, second: SceneObject | None) -> bool:
    if first is None or second is None:
        return False
    (row_1, column_1), (row_2, column_2) = (divmod(PLACES.index(item.place), 2) for item in (first, second))
    return {
        "left of": column_1 < column_2,
        "right of": column_1 > column_2,
        "above": row_1 < row_2,
        "below": row_1 > row_2,
    }[name]


# -------------------------------------------------------------------------------------------------------------- parser
_ALL_COLORS = (*COLORS, *BACKGROUNDS)  # a text may state a colour that no object or background has, and be wrong
_SYNONYMS = {
    "big": "large", "huge": "large", "giant": "large", "little": "small", "tiny": "small", "mini": "small",
    "grey": "gray", "violet": "purple", "upper": "top", "lower": "bottom", "backdrop": "background",
    "under": "below", "beneath": "below", "over": "above", "outline": "outlined", "stripy": "striped",
    "figure": "object", "thing": "object", "shape": "object",
    "figures": "objects", "things": "objects", "shapes": "objects",
}  # fmt: skip
_MAX_COPIES = 9  # of an object that a text names by number
_NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_WORDS = {
    **{word: ("noun", word) for word in SHAPES},
    **{word + "s": ("nouns", word) for word in SHAPES},
    **{word: ("color", word) for word in _ALL_COLORS},
    **{word: ("size", word) for word in SIZES},
    **{word: ("style", word) for word in STYLES},
    **{word: ("number", word) for word in _NUMBERS},
    **{word: ("break", word) for word in ("and", "with", "near", "beside", "plus")},
    "object": ("object", ""),
}
_COLOR = "|".join(_ALL_COLORS)
_BACKGROUND = re.compile(
    rf"(?:\b(?:on|against) +)?(?:\b(?:a|an|the) +)?(?:\b(?:plain|solid) +)?\b(?P<before>{_COLOR}) +background\b"
    rf"|\bbackground *(?::|is|of) *(?P<after>{_COLOR})\b"
    rf"|\b(?:on|against) +(?:(?:a|the|plain|solid) +)*(?P<bare>{_COLOR})\b"
    rf"(?! +(?:(?:{'|'.join((*_ALL_COLORS, *SIZES, *STYLES))}) +)*(?:{'|'.join(SHAPES)}))"
)
_TOKEN = re.compile(
    r"(?P<place>\b(?:top|bottom) +(?:left|right)\b)"
    r"|(?P<relation>\b(?:left|right) +of\b|\b(?:above|below)\b)"
    rf"|(?P<text>\b{TEXT} +[\"'](?P<letters>[a-z]{{1,3}})[\"'])"
    rf"|(?P<count>\b(?P<total>\d{{1,2}}|{'|'.join(_NUMBERS)}) +(?:(?:coloured|colored|simple|geometric) +)?objects?\b)"
    r"|(?P<word>[a-z]+)|(?P<number>\d+)|(?P<break>[,.;!?|()&+])"
)


def parse_facts(text: str) -> Facts:
    """What ``text`` states, as far as it speaks the language of the world.

    Clauses end at commas, full stops, "and", "with" and relations. In a clause with one noun all attributes belong to
    it; with several, places belong to the noun before and other attributes to the noun behind. A clause without a noun
    adds what the noun before it lacks, else it is kept for the next one. Words that are not known are passed over.
    """
    plain = re.sub(r"[-_]+", " ", text.lower().translate({0x201C: '"', 0x201D: '"'}))
    plain = re.sub(r"[a-z]+", lambda word: _SYNONYMS.get(word[0], word[0]), plain)
    background: str | None = None
    if found := _BACKGROUND.search(plain):
        background = next(value for value in found.group("before", "after", "bare") if value)
        plain = f"{plain[: found.start()]} , {plain[found.end() :]}"
    reading = _Reading()
    for token in _TOKEN.finditer(plain):
        reading.take(token)
    reading.end_clause()
    objects = tuple(StatedObject(**attributes) for attributes in reading.objects)
    return Facts(objects, background, tuple(reading.relations), reading.count)


class _Reading:
    """The state of :func:`parse_facts` between two tokens."""

    def __init__(self) -> None:
        self.objects: list[dict[str, str]] = []  # attributes of each; "two circles" are one dict twice
        self.relations: list[Relation] = []
        self.count: int | None = None
        self._clause: list[tuple[str, str]] = []  # (kind, value)
        self._kept: dict[str, str] = {}  # attributes that wait for their noun
        self._relation: tuple[str, int] | None = None  # waits for its second object

    def take(self, token: re.Match[str]) -> None:
        kind, value = str(token.lastgroup), token[0]
        if kind == "word":
            kind, value = _WORDS.get(value, ("", ""))
        if kind == "break":
            self.end_clause()
        elif kind == "relation":
            self.end_clause()
            self._relation = (" ".join(value.split()), len(self.objects) - 1) if self.objects else None
        elif kind == "count":
            total = token["total"]
            self.count = _NUMBERS[total] if total in _NUMBERS else int(total)
        elif kind == "text":
            self._clause += [("noun", TEXT), ("text", token["letters"].upper())]
        elif kind:
            self._clause.append((kind, " ".join(value.split())))

    def end_clause(self) -> None:
        clause, self._clause = self._clause, []
        attributes = [(at, kind, value) for at, (kind, value) in enumerate(clause) if kind in ATTRIBUTES]
        nouns = [at for at, (kind, _) in enumerate(clause) if kind in ("noun", "nouns")]
        if not nouns and attributes:
            nouns = [at for at, (kind, _) in enumerate(clause) if kind == "object"][:1]
        owners = {at: self._add(clause, at) for at in nouns}
        for at, name, value in attributes:
            before, behind = [n for n in nouns if n < at], [n for n in nouns if n > at]
            if not nouns:
                lacks = bool(self.objects) and name not in self.objects[-1]
                owner = self.objects[-1] if lacks else self._kept
            elif name in ("place", "text"):
                owner = owners[before[-1] if before else behind[0]]
            else:
                owner = owners[behind[0] if behind else before[-1]]
            owner.setdefault(name, value)

    def _add(self, clause: list[tuple[str, str]], at: int) -> dict[str, str]:
        """Start the object whose noun stands at ``at``, as often as a number before it says."""
        kind, noun = clause[at]
        attributes, self._kept = {**self._kept, **({"shape": noun} if noun else {})}, {}
        copies = 1
        if kind == "nouns":
            numbers = [value for before, value in clause[:at] if before == "number"]
            copies = max(1, min(_MAX_COPIES, int(_NUMBERS.get(numbers[-1], numbers[-1])))) if numbers else 1
        if self._relation:
            self.relations.append((*self._relation, len(self.objects)))
            self._relation = None
        self.objects += [attributes] * copies
        return attributes
