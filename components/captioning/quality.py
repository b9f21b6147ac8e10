"""Caption tests: a verdict for each caption, and one for all captions of a shard.

What belongs here: what is wrong with a caption by its form, statistics over many, thresholds, the words of a verdict.
What does not: whether a caption is true: of pictures whose facts are known (``golden``), of whole data sets
(``evaluation.caption_accuracy``).

The statistics of form are those for whose sake the DALL-E 3 report blends captions (Betker et al. 2023, section 3.1):
letter case, final punctuation, length, leading articles.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

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
WITHOUT_BLANKS = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")  # Thai, Lao, kana, Chinese characters
LONGEST_LOOP = 12  # words of a phrase that is looked for right behind itself
FINAL_PUNCTUATION = (".", "!", "?", "。")
MIN_WORD_SHARE = 0.05  # words that stand in fewer captions are left out of the comparison of words
NUM_INVENTED_SHOWN = 5
CAPTION_TESTS = {
    "captions_are_well_formed": "Few captions are missing, empty, too long, looping, boilerplate or a refusal.",
    "captions_differ": "Captions are not the same few sentences for all pictures.",
    "captions_keep_their_style": "Leading articles, letter case and final punctuation are as allowed.",
    "captions_keep_their_length": "Lengths are as in the examples and in the previous version.",
    "captions_use_known_words": "Words stand in the texts that the captioner learned from, as often as before.",
    "captions_fit_their_pictures": "CLIP finds captions nearer to their own pictures than to any other.",
}
Complaint = tuple[str, str]  # the name of a caption test, and what it found


class QualityConfig(Frozen):
    """When a caption, and when all captions of a shard, must not be trained on."""

    max_words: int = Field(default=120, description="Longest caption in words.", gt=0)
    max_rejected_fraction: float = Field(
        default=0.05, description="Share of captions that are missing or rejected.", ge=0, le=1
    )
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
        default=2.0,
        description="Mean CLIP score with the own picture less that with any other picture, cosine x 100.",
    )
    max_style_drift: float = Field(
        default=0.3,
        description="Largest change, against the examples, of the shares of articles, lower case and punctuation.",
    )
    max_length_ratio: float = Field(
        default=1.5, description="Largest ratio of mean words to the examples', either way.", ge=1
    )
    max_length_shift: float = Field(
        default=0.4,
        description="Largest distance of the lengths' distribution from the previous version's (Kolmogorov-Smirnov).",
        ge=0,
        le=1,
    )
    max_word_drift: float = Field(
        default=0.5,
        description="Largest change, against the examples and the previous version, of the share of captions that "
        "hold one same word.",
        ge=0,
        le=1,
    )
    max_invented_fraction: float = Field(
        default=0.25, description="Share of words that no text has which the captioner learned from.", ge=0, le=1
    )
    max_golden_failures: float = Field(
        default=0.1,
        description="Share of golden pictures on which a captioner may leave a fact out or say a false one.",
        ge=0,
        le=1,
    )


def problem_of(caption: str, config: QualityConfig) -> str | None:
    """Why one caption must not be trained on, or None."""
    words = words_of(caption)
    if not words:
        return "empty"
    if len(words) > config.max_words:
        return f"too_long: {len(words)} words"
    loop = STUTTER.search(caption)
    # What stands before a colon is a heading, which the text behind it may say again ("apple: apple; fruit").
    parts = [words_of(part) for part in caption.split(":")]
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
            if words[start] != words[start + size]:
                continue  # most places end here, without a slice
            phrase = words[start : start + size]
            if all(words[start + n * size : start + (n + 1) * size] == phrase for n in range(1, times)):
                return " ".join(phrase)
    return None


@dataclass(frozen=True, slots=True)
class ShardQuality:
    """Statistics of one kind of caption over many rows. Shares are in [0, 1], scores are cosines x 100.

    ``lengths``: how many captions have 0, 1, 2 ... words. ``word_shares``: the share of captions that hold a word, of
    words that stand in at least 5 % of them. ``invented``: the share of words outside the known vocabulary, with
    the commonest of them.
    """

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
    lengths: Sequence[int] = ()
    word_shares: Mapping[str, float] = field(default_factory=dict)
    invented: float = 0.0
    invented_words: Sequence[str] = ()

    def figures(self) -> dict[str, float]:
        """The single figures by name, for metadata."""
        names = (
            "leading_article",
            "lower_case",
            "final_punctuation",
            "mean_words",
            "invented",
            "clip_score",
            "shuffled_clip_score",
        )
        return {
            "rejected": self.num_rejected,
            "distinct": self.num_distinct,
            **{name: round(float(getattr(self, name)), 4) for name in names},
        }

    def as_json(self) -> dict[str, Any]:
        """All statistics as a JSON value; ``ShardQuality(**value)`` is the same again."""
        values = asdict(self) | {"lengths": list(self.lengths), "invented_words": list(self.invented_words)}
        values["word_shares"] = {word: round(share, 6) for word, share in self.word_shares.items()}
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}

    def verdict(
        self,
        config: QualityConfig,
        examples: "ShardQuality | None" = None,
        previous: "ShardQuality | None" = None,
    ) -> str | None:
        """Why these captions must not be trained on, each reason with its figure and threshold; None where they may."""
        return "; ".join(message for _, message in self.complaints(config, examples, previous)) or None

    def complaints(
        self,
        config: QualityConfig,
        examples: "ShardQuality | None" = None,
        previous: "ShardQuality | None" = None,
    ) -> Iterator[Complaint]:
        """What each of ``CAPTION_TESTS`` has against these captions.

        ``examples``: the same statistics of the texts that the captioner learned from; ``previous``: those of the last
        captions of these pictures that were fit for training. Scores are compared with neither.
        """
        yield from self._complaints(config)
        if examples:
            yield from self._drift_from_examples(config, examples)
            yield from self._word_drift(config, examples, "examples")
        if previous:
            shift = _largest_gap(self.lengths, previous.lengths)
            if shift > config.max_length_shift:
                yield (
                    "captions_keep_their_length",
                    f"the lengths have moved by {shift:.2f} against the previous version (mean {self.mean_words:.1f} "
                    f"words after {previous.mean_words:.1f}), {config.max_length_shift:.2f} is allowed; raise "
                    "recaption.quality.max_length_shift if that is meant",
                )
            yield from self._word_drift(config, previous, "previous version")

    def _complaints(self, config: QualityConfig) -> Iterator[Complaint]:
        rejected = self.num_rejected / max(1, self.num_rows)
        if rejected > config.max_rejected_fraction:
            allowed = f"{config.max_rejected_fraction:.1%} are allowed"
            yield (
                "captions_are_well_formed",
                f"{rejected:.1%} of the captions are rejected, {allowed} (the first: {self.first_problem})",
            )
        if self.num_distinct < min(config.min_distinct, self.num_rows / 8):
            yield "captions_differ", f"only {self.num_distinct} distinct captions for {self.num_rows} pictures"
        for name, words, allowed in (
            ("leading_article", "begin with an article", config.max_leading_article_fraction),
            ("final_punctuation", "end with punctuation", config.max_final_punctuation_fraction),
        ):
            if (found := getattr(self, name)) > allowed:
                yield "captions_keep_their_style", f"{found:.1%} of the captions {words}, {allowed:.1%} may"
        if self.mean_words < config.min_mean_words:
            yield (
                "captions_keep_their_length",
                f"captions have {self.mean_words:.1f} words on average, at least {config.min_mean_words:.1f} are due",
            )
        if self.invented > config.max_invented_fraction:
            shown = ", ".join(map(repr, self.invented_words))
            yield (
                "captions_use_known_words",
                f"{self.invented:.1%} of the words stand in no text that the captioner learned from ({shown}), "
                f"{config.max_invented_fraction:.1%} may",
            )
        margin = self.clip_score - self.shuffled_clip_score
        if margin < config.min_clip_margin:
            yield (
                "captions_fit_their_pictures",
                f"captions fit their own pictures by {margin:.2f} more than other pictures (CLIP score "
                f"{self.clip_score:.2f} against {self.shuffled_clip_score:.2f}), at least {config.min_clip_margin:.2f} "
                "is due",
            )

    def _drift_from_examples(self, config: QualityConfig, examples: "ShardQuality") -> Iterator[Complaint]:
        for name in ("leading_article", "lower_case", "final_punctuation"):
            found, expected = getattr(self, name), getattr(examples, name)
            if abs(found - expected) > config.max_style_drift:
                allowed = f"they may differ by {config.max_style_drift:.1%}"
                yield (
                    "captions_keep_their_style",
                    f"{name} holds for {found:.1%} of the captions and {expected:.1%} of the examples, {allowed}",
                )
        ratio = self.mean_words / examples.mean_words if self.mean_words and examples.mean_words else 1.0
        if max(ratio, 1 / ratio) > config.max_length_ratio:
            yield (
                "captions_keep_their_length",
                f"captions have {self.mean_words:.1f} words on average and the examples {examples.mean_words:.1f}, "
                f"a ratio of {config.max_length_ratio:.2f} is allowed",
            )

    def _word_drift(self, config: QualityConfig, other: "ShardQuality", name: str) -> Iterator[Complaint]:
        ours, theirs = self.word_shares, other.word_shares
        drifts = {word: abs(ours.get(word, 0.0) - theirs.get(word, 0.0)) for word in sorted({*ours, *theirs})}
        word = max(drifts, key=drifts.__getitem__, default="")
        if word and drifts[word] > config.max_word_drift:
            yield (
                "captions_use_known_words",
                f"the word {word!r} stands in {ours.get(word, 0.0):.1%} of the captions and "
                f"{theirs.get(word, 0.0):.1%} of the {name}, they may differ by {config.max_word_drift:.1%}",
            )


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return WORD.findall(text.lower())


def quality_of(
    captions: Sequence[str | None],
    scores: Sequence[float],
    shuffled_scores: Sequence[float],
    config: QualityConfig,
    *,
    problems: Sequence[str | None] | None = None,
    vocabulary: Collection[str] | None = None,
) -> ShardQuality:
    """Statistics of captions, with their CLIP scores against the own picture and against any other.

    ``problems``: what is wrong with each caption, where that is known already; a caption that is None needs one there.
    ``vocabulary``: the words that the captioner can know.
    """
    if problems is None:
        problems = [problem_of(caption or "", config) for caption in captions]
    found = [problem for problem in problems if problem]
    written = [caption for caption in captions if caption is not None]
    words = [words_of(caption) for caption in written]
    lengths = [len(caption.split()) for caption in written]
    standing = Counter(word for each in words for word in set(each))
    invented: Counter[str] = Counter()
    if vocabulary is not None:
        invented = Counter(word for each in words for word in each if word not in vocabulary and _is_countable(word))
    return ShardQuality(
        num_rows=len(captions),
        num_rejected=len(found),
        num_distinct=len(set(written)),
        leading_article=_share(ARTICLE.match(caption) is not None for caption in written),
        lower_case=_share(caption == caption.lower() for caption in written),
        final_punctuation=_share(caption.rstrip().endswith(FINAL_PUNCTUATION) for caption in written),
        mean_words=float(np.mean(lengths or [0])),
        clip_score=float(np.mean(scores or [0.0])),
        shuffled_clip_score=float(np.mean(shuffled_scores or [0.0])),
        first_problem=found[0] if found else None,
        lengths=np.bincount(lengths).tolist() if lengths else [],
        word_shares={
            word: count / len(written)
            for word, count in sorted(standing.items())
            if count >= MIN_WORD_SHARE * len(written)
        },
        invented=sum(invented.values()) / max(1, sum(map(len, words))),
        invented_words=[word for word, _ in sorted(invented.items(), key=lambda one: (-one[1], one[0]))][
            :NUM_INVENTED_SHOWN
        ],
    )


def _is_countable(word: str) -> bool:
    """Whether a word can be looked up: a number is no invention, and scripts without blanks give whole sentences."""
    return not word.isdigit() and not WITHOUT_BLANKS.search(word)


def _share(hits: Iterator[bool]) -> float:
    return float(np.mean([*hits] or [False]))


def _largest_gap(counts: Sequence[int], others: Sequence[int]) -> float:
    """The Kolmogorov-Smirnov distance of two distributions over 0, 1, 2 ..., given as counts; 0 where one is empty."""
    if not sum(counts) or not sum(others):
        return 0.0
    size = max(len(counts), len(others))
    shares = [np.cumsum(np.pad(each, (0, size - len(each)))) / sum(each) for each in (counts, others)]
    return float(np.abs(shares[0] - shares[1]).max())
