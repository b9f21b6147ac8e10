"""Whether upsampled prompts look like the captions that a model was trained on.

What belongs here: statistics of both and what differs too much. What does not: rewriting prompts (the prompt upsampler)
and whether pictures get better for it (``measurement``).
"""

import re
from collections.abc import Sequence

import numpy as np

from .figures import UpsamplingFigures
from .intervals import clustered_share, mean

WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
CLAUSE_END = re.compile(r"[,;:.!?]+")


def compare_upsampled(
    prompts: Sequence[str], captions: Sequence[str], *, max_length_gap: float, min_known_words: float
) -> UpsamplingFigures:
    """Statistics of upsampled prompts beside those of training captions, and complaints where they are far apart.

    ``max_length_gap`` bounds the Kolmogorov-Smirnov distance of their lengths in words, ``min_known_words`` the share
    of the prompts' words that stand in any caption.
    """
    vocabulary = {word for caption in captions for word in _words(caption)}
    words = [_words(prompt) for prompt in prompts]
    known = clustered_share([sum(word in vocabulary for word in each) for each in words], [len(each) for each in words])
    lengths, caption_lengths = ([len(text.split()) for text in texts] for texts in (prompts, captions))
    gap = _largest_gap(lengths, caption_lengths)
    complaints = []
    if gap > max_length_gap:
        complaints.append(
            f"the lengths of upsampled prompts (mean {np.mean(lengths):.1f} words) lie {gap:.2f} from those of the "
            f"captions (mean {np.mean(caption_lengths):.1f}), {max_length_gap:.2f} is allowed"
        )
    if known and known.value < min_known_words:
        strange = sorted({word for each in words for word in each} - vocabulary)[:5]
        complaints.append(
            f"{known.value:.1%} of the words of upsampled prompts stand in captions, {min_known_words:.1%} should "
            f"(not: {', '.join(map(repr, strange))})"
        )
    return UpsamplingFigures(
        num_prompts=len(prompts),
        words=mean(lengths),
        caption_words=mean(caption_lengths),
        clauses=mean([_clauses(prompt) for prompt in prompts]),
        caption_clauses=mean([_clauses(caption) for caption in captions]),
        known_words=known,
        length_gap=gap,
        complaints=tuple(complaints),
    )


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _clauses(text: str) -> int:
    return sum(bool(part.strip()) for part in CLAUSE_END.split(text))


def _largest_gap(lengths: Sequence[int], others: Sequence[int]) -> float:
    """The Kolmogorov-Smirnov distance of two samples."""
    points = np.unique([*lengths, *others])
    shares = [np.searchsorted(np.sort(each), points, side="right") / len(each) for each in (lengths, others)]
    return float(np.abs(shares[0] - shares[1]).max())
