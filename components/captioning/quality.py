"""Caption tests: a verdict for each caption, and one for all captions of a shard.

What belongs here: what is wrong with a caption by its form, statistics over many, thresholds, the words of a verdict.
What does not: whether a caption is true where truth is known (``evaluation.caption_accuracy``).

The statistics of form are those for whose sake the DALL-E 3 report blends captions (Betker et al. 2023, section 3.1):
letter case, final punctuation, length, leading articles.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from components.contracts import Frozen

ARTICLE = re.compile(r"(?:a|an|the)\s", re.IGNORECASE)
PREAMBLE = re.compile(
    r"(?:an?|the|this)\s+(?:image|picture|photo|photograph|illustration)\s+(?:of|shows|depicts|features)\b",
    re.IGNORECASE,
)
REFUSAL = re.compile(
    r"\b(?:i['’]?m sorry|i am sorry|i apologi[sz]e|i cannot|i can['’]t|i(?: a|['’])m (?:unable|not able)"
    r"|as an ai|unable to (?:see|describe)|no image (?:was )?provided)\b",
    re.IGNORECASE,
)
ADVERT = re.compile(
    r"\b(?:all rights reserved|click to enlarge|free download|add to cart|buy now|sign up|subscribe|lorem ipsum"
    r"|shutterstock|getty images|stock (?:photo|image))\b|https?://|\bwww\.",
    re.IGNORECASE,
)
STUTTER = re.compile(r"(\S{1,8}?)\1{5,}")  # within a word, and in scripts without blanks
WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
LONGEST_LOOP = 12  # words of a phrase that is looked for right behind itself
FINAL_PUNCTUATION = (".", "!", "?", "。")


class QualityConfig(Frozen):
    """When a caption, and when all captions of a shard, must not be trained on."""

    max_words: int = Field(default=120, description="Longest caption in words.", gt=0)
    max_rejected_fraction: float = Field(default=0.05, description="Share of rejected captions.", ge=0, le=1)
    max_leading_article_fraction: float = Field(
        default=0.5, description="Share of captions that begin with a, an, the."
    )
    max_final_punctuation_fraction: float = Field(
        default=1.0, description="Share of captions that end with punctuation."
    )
    min_distinct: int = Field(
        default=8, description="Distinct captions, where a shard has at least eight times as many rows."
    )
    min_mean_words: float = Field(default=1.0, description="Mean length in words.")
    min_clip_margin: float = Field(
        default=0.0,
        description="Mean CLIP score with the own picture less that with another row's picture, cosine x 100.",
    )
    max_style_drift: float = Field(
        default=0.3,
        description="Largest change, against the examples, of the shares of articles, lower case and punctuation.",
    )
    max_length_ratio: float = Field(
        default=1.5, description="Largest ratio of mean words to the examples', either way.", ge=1
    )


def problem_of(caption: str, config: QualityConfig) -> str | None:
    """Why one caption must not be trained on, or None."""
    words = WORD.findall(caption.lower())
    if not words:
        return "empty"
    if len(words) > config.max_words:
        return f"too_long: {len(words)} words"
    loop = STUTTER.search(caption)
    # What stands before a colon is a heading, which the text behind it may say again ("apple: apple; fruit").
    parts = [WORD.findall(part) for part in caption.lower().split(":")]
    repeated = loop[1] if loop else next(filter(None, map(repeated_phrase, parts)), None)
    if repeated:
        return f"repetition: {repeated!r}"
    if PREAMBLE.match(caption) or ADVERT.search(caption):
        return "boilerplate"
    return "refusal" if REFUSAL.search(caption) else None


def repeated_phrase(words: Sequence[str]) -> str | None:
    """A phrase of one or two words that stands three times in a row, or of three to twelve twice; else None."""
    for size in range(1, LONGEST_LOOP + 1):
        times = 3 if size < 3 else 2
        for start in range(len(words) - times * size + 1):
            phrase = words[start : start + size]
            if all(words[start + n * size : start + (n + 1) * size] == phrase for n in range(1, times)):
                return " ".join(phrase)
    return None


@dataclass(frozen=True, slots=True)
class ShardQuality:
    """Statistics of one kind of caption over many rows. Shares are in [0, 1], scores are cosines x 100."""

    num_rows: int
    num_rejected: int
    num_distinct: int
    leading_article: float
    lower_case: float
    final_punctuation: float
    mean_words: float
    clip_score: float
    shuffled_clip_score: float
    first_problem: str | None = None

    def figures(self) -> dict[str, float]:
        """The statistics by name, for metadata."""
        names = (
            "leading_article",
            "lower_case",
            "final_punctuation",
            "mean_words",
            "clip_score",
            "shuffled_clip_score",
        )
        return {
            "rejected": self.num_rejected,
            "distinct": self.num_distinct,
            **{name: round(float(getattr(self, name)), 4) for name in names},
        }

    def verdict(self, config: QualityConfig, examples: "ShardQuality | None" = None) -> str | None:
        """Why these captions must not be trained on, each reason with its figure and threshold; None where they may.

        ``examples``: the same statistics of the texts that the captioner learned from (scores are not compared).
        """
        complaints = [*self._complaints(config), *(self._drift(config, examples) if examples else ())]
        return "; ".join(complaints) or None

    def _drift(self, config: QualityConfig, examples: "ShardQuality") -> Iterator[str]:
        for name in ("leading_article", "lower_case", "final_punctuation"):
            found, expected = getattr(self, name), getattr(examples, name)
            if abs(found - expected) > config.max_style_drift:
                allowed = f"they may differ by {config.max_style_drift:.1%}"
                yield f"{name} holds for {found:.1%} of the captions and {expected:.1%} of the examples, {allowed}"
        ratio = self.mean_words / examples.mean_words if self.mean_words and examples.mean_words else 1.0
        if max(ratio, 1 / ratio) > config.max_length_ratio:
            allowed = f"a ratio of {config.max_length_ratio:.2f} is allowed"
            yield (
                f"captions have {self.mean_words:.1f} words on average and the examples {examples.mean_words:.1f}, "
                f"{allowed}"
            )

    def _complaints(self, config: QualityConfig) -> Iterator[str]:
        rejected = self.num_rejected / max(1, self.num_rows)
        if rejected > config.max_rejected_fraction:
            allowed = f"{config.max_rejected_fraction:.1%} are allowed"
            yield f"{rejected:.1%} of the captions are rejected, {allowed} (the first: {self.first_problem})"
        if self.leading_article > config.max_leading_article_fraction:
            allowed = f"{config.max_leading_article_fraction:.1%} may"
            yield f"{self.leading_article:.1%} of the captions begin with an article, {allowed}"
        if self.final_punctuation > config.max_final_punctuation_fraction:
            allowed = f"{config.max_final_punctuation_fraction:.1%} may"
            yield f"{self.final_punctuation:.1%} of the captions end with punctuation, {allowed}"
        if self.num_distinct < min(config.min_distinct, self.num_rows / 8):
            yield f"only {self.num_distinct} distinct captions for {self.num_rows} pictures"
        if self.mean_words < config.min_mean_words:
            yield f"captions have {self.mean_words:.1f} words on average, at least {config.min_mean_words:.1f} are due"
        margin = self.clip_score - self.shuffled_clip_score
        if margin < config.min_clip_margin:
            yield (
                f"captions fit their own pictures by {margin:.2f} more than other pictures (CLIP score "
                f"{self.clip_score:.2f} against {self.shuffled_clip_score:.2f}), at least {config.min_clip_margin:.2f} "
                "is due"
            )


def quality_of(
    captions: Sequence[str], scores: Sequence[float], shuffled_scores: Sequence[float], config: QualityConfig
) -> ShardQuality:
    """Statistics of captions, with their CLIP scores against the own picture and against another row's."""
    problems = [problem_of(caption, config) for caption in captions]
    found = [problem for problem in problems if problem]
    return ShardQuality(
        num_rows=len(captions),
        num_rejected=len(found),
        num_distinct=len(set(captions)),
        leading_article=_share(ARTICLE.match(caption) is not None for caption in captions),
        lower_case=_share(caption == caption.lower() for caption in captions),
        final_punctuation=_share(caption.rstrip().endswith(FINAL_PUNCTUATION) for caption in captions),
        mean_words=float(np.mean([len(caption.split()) for caption in captions] or [0])),
        clip_score=float(np.mean(scores or [0.0])),
        shuffled_clip_score=float(np.mean(shuffled_scores or [0.0])),
        first_problem=found[0] if found else None,
    )


def _share(hits: Iterator[bool]) -> float:
    return float(np.mean([*hits] or [False]))
