"""The golden test: captions of pictures whose facts are known must say them, and nothing that is known to be false.

What belongs here: looking for facts in captions. What does not: the facts (``components.data.golden``) and what follows
from a failure (``components.pipeline``).
"""

from collections.abc import Mapping, Sequence

from components.data.golden import GoldenPicture

from .quality import QualityConfig, words_of


def golden_problem(caption: str, golden: GoldenPicture) -> str | None:
    """Which fact is missing from a caption, or which false one it states; None where it passes."""
    words = words_of(caption)
    for fact in golden.says:
        if not any(_holds(words, phrase) for phrase in fact):
            return f"does not say {' or '.join(map(repr, fact))}"
    for phrase in golden.never:
        if _holds(words, phrase):
            return f"says {phrase!r}, which is false"
    return None


def golden_failures(captions: Sequence[str], pictures: Sequence[GoldenPicture]) -> dict[str, str]:
    """What is wrong with each failing picture's caption, by the picture's name."""
    found = {}
    for caption, golden in zip(captions, pictures, strict=True):
        if problem := golden_problem(caption, golden):
            found[golden.name] = f"{problem}: {caption!r}"
    return found


def golden_complaint(failures: Mapping[str, str], num_pictures: int, config: QualityConfig) -> str | None:
    """Why a captioner must not be promoted, naming a picture and a fact; None where few enough pictures failed."""
    if not failures or len(failures) <= config.max_golden_failures * num_pictures:
        return None
    name, problem = next(iter(failures.items()))
    return (
        f"{len(failures)} of {num_pictures} golden pictures failed, {config.max_golden_failures:.1%} may; the first: "
        f"picture {name} {problem}"
    )


def _holds(words: Sequence[str], phrase: str) -> bool:
    wanted = words_of(phrase)
    return any(list(words[start : start + len(wanted)]) == wanted for start in range(len(words) - len(wanted) + 1))
