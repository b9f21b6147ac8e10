"""Whether a generated picture shows what its prompt states, and whether the judge reads real pictures rightly.

What belongs here: counting verdicts of a judge's readings against facts. What does not: reading pictures (the attribute
judge) and deciding which facts hold of a scene (``components.data.scene_facts``).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from components.data.scene_facts import Facts, Match, facts_of, matches
from components.data.scene_graph import Scene

from .intervals import Figure, clustered_share, share

OBJECT_FACTS = ("shape", "color", "place")  # what makes an object right (DESIGN section 8); size is reported beside it


@dataclass(frozen=True, slots=True)
class PromptFollowing:
    """Shares of prompts (``scene_accuracy``), stated objects (``object_accuracy``) and stated facts that hold.

    ``one_object`` is ``scene_accuracy`` of those prompts that state that there is one object. Fields are None where no
    prompt states such a fact.
    """

    scene_accuracy: Figure | None = None
    one_object: Figure | None = None
    object_accuracy: Figure | None = None
    shape: Figure | None = None
    colour: Figure | None = None
    size: Figure | None = None
    place: Figure | None = None
    count: Figure | None = None
    relation: Figure | None = None
    background: Figure | None = None
    style: Figure | None = None
    text: Figure | None = None


def prompt_following(facts: Sequence[Facts], read: Sequence[Scene]) -> PromptFollowing:
    """How well pictures follow their prompts.

    ``facts``: what each prompt states (``scene_captions.prompt_facts`` or ``scene_facts.parse_facts``); ``read``: what
    the judge saw in the picture made from it. Stated objects are assigned one to one to those seen, so that most facts
    hold. A fact of an object that the picture lacks does not hold. Intervals count the pictures as clusters.
    """
    judged = [matches(stated, scene) for stated, scene in zip(facts, read, strict=True)]
    shares = {_FIELDS.get(name, name): figure for name, figure in _by_fact(judged).items()}
    return PromptFollowing(
        scene_accuracy=share([match.holds for match in judged]),
        one_object=share([match.holds for stated, match in zip(facts, judged, strict=True) if stated.count == 1]),
        object_accuracy=_clustered([_right_objects(match) for match in judged]),
        **shares,
    )


def judge_accuracy(truth: Sequence[Scene], read: Sequence[Scene]) -> PromptFollowing:
    """How well a judge reads real pictures: the same shares, of every fact of the true scene.

    ``scene_accuracy`` asks for the same scene exactly, with no object more and none less.
    """
    following = prompt_following([facts_of(scene) for scene in truth], read)
    exact = share([one == other for one, other in zip(truth, read, strict=True)])
    fields = {name: getattr(following, name) for name in PromptFollowing.__dataclass_fields__}
    return PromptFollowing(**{**fields, "scene_accuracy": exact})


_FIELDS = {"color": "colour"}


def _by_fact(judged: Iterable[Match]) -> Mapping[str, Figure | None]:
    counts: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for match in judged:
        verdicts: dict[str, list[bool]] = defaultdict(list)
        for name, holds in match.verdicts():
            verdicts[name].append(holds)
        for name, held in verdicts.items():
            counts[name].append((sum(held), len(held)))
    return {name: _clustered(pairs) for name, pairs in counts.items()}


def _right_objects(match: Match) -> tuple[int, int]:
    stated = [[holds for name, holds in verdicts.items() if name in OBJECT_FACTS] for verdicts in match.objects]
    stated = [verdicts for verdicts in stated if verdicts]
    return sum(all(verdicts) for verdicts in stated), len(stated)


def _clustered(pairs: Sequence[tuple[int, int]]) -> Figure | None:
    return clustered_share([hits for hits, _ in pairs], [total for _, total in pairs])
