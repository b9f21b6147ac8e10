"""What captions say of pictures whose truth is known: how much of it is right, and how much is made up.

What belongs here: counting a caption's statements against the scene. What does not: parsing and comparing statements
(``components.data.scene_facts``) and tests of form such as length and letter case (``components.captioning``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from components.data.scene_facts import Facts, matches, parse_facts
from components.data.scene_graph import Scene

from .intervals import Figure, clustered_share, mean, share


@dataclass(frozen=True, slots=True)
class CaptionAccuracy:
    """Three shares; each is None where there are no captions (or no statements).

    ``attribute_accuracy``: of the attributes to be said, those said rightly. ``exact_match``: of captions, those that
    say all of them and nothing false. ``hallucination_rate``: of all statements, the false ones.
    """

    attribute_accuracy: Figure | None
    exact_match: Figure | None
    hallucination_rate: Figure | None


def caption_accuracy(captions: Sequence[str], scenes: Sequence[Scene], expected: Sequence[Facts]) -> CaptionAccuracy:
    """Captions against the scenes they describe.

    ``expected``: what each caption ought to say. For descriptive and raw captions that is ``facts_of(scene)``; for
    short ones ``parse_facts(ssc(scene))``, the main subject. Attributes are the objects' and the background; numbers
    and relations are not asked for, but false ones count as made up. An object that a short caption names beyond its
    subject is no error if it is there.
    """
    right: list[tuple[int, int]] = []
    false: list[tuple[int, int]] = []
    exact: list[bool] = []
    for caption, scene, wanted in zip(captions, scenes, expected, strict=True):
        said = parse_facts(caption)
        num_right, num_wanted = _right_attributes(said, scene, wanted)
        verdicts = [holds for _, holds in matches(said, scene).verdicts()]
        right.append((num_right, num_wanted))
        false.append((len(verdicts) - sum(verdicts), len(verdicts)))
        exact.append(num_right == num_wanted and all(verdicts))
    return CaptionAccuracy(_share_of(right), share(exact), _share_of(false))


def mean_words(captions: Sequence[str]) -> Figure | None:
    """Words per caption, parted by white space."""
    return mean([len(caption.split()) for caption in captions])


def distinct_share(captions: Sequence[str]) -> Figure | None:
    """Distinct captions per caption: near 0 where a captioner says the same of every picture."""
    if not captions:
        return None
    return Figure(len(set(captions)) / len(captions), None, len(captions))


def _right_attributes(said: Facts, scene: Scene, wanted: Facts) -> tuple[int, int]:
    """How many of the wanted attributes are said rightly, and how many are wanted."""
    numbers = matches(wanted, scene).assignment
    subjects = [(stated, number) for stated, number in zip(wanted.objects, numbers, strict=True) if number is not None]
    # What is said is judged against the subjects alone, so that naming another object instead does not count.
    subject_scene = Scene(tuple(scene.objects[number] for _, number in subjects), scene.background)
    asked = {scene.objects[number].place: set(stated.stated()) for stated, number in subjects}
    match = matches(Facts(said.objects, said.background), subject_scene)
    num_right = sum(
        holds and name in asked[subject_scene.objects[number].place]
        for number, verdicts in zip(match.assignment, match.objects, strict=True)
        if number is not None
        for name, holds in verdicts.items()
    )
    num_wanted = sum(map(len, asked.values())) + (wanted.background is not None)
    return num_right + bool(wanted.background is not None and match.background), num_wanted


def _share_of(pairs: Sequence[tuple[int, int]]) -> Figure | None:
    return clustered_share([hits for hits, _ in pairs], [total for _, total in pairs])
