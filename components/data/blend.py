"""Which text of a row a training step sees: the caption blend, at sampling time.

What belongs here: the draw of one text for each row. What does not: how texts come about (captioners, data sets) and
the synthetic fraction itself, which a recipe sets.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from components.contracts import StepRandom

RAW = "caption"  # the kind that every row has


def choose_texts(
    texts: Mapping[str, Sequence[str | None]],
    rows: np.ndarray,
    weights: Mapping[str, float],
    dropout: float,
    rng: StepRandom,
) -> list[str]:
    """One text for each of ``rows``: that of the kind which :func:`choose_kinds` draws, "" where it draws none.

    ``texts``: by kind, as in :class:`components.contracts.Rows`; ``rows``: row numbers, int64 (B,).
    """
    kinds = choose_kinds(texts, weights, dropout, rng)
    return [text_of(texts, kind, row) if kind else "" for kind, row in zip(kinds, rows.tolist(), strict=True)]


def choose_kinds(
    texts: Mapping[str, Sequence[str | None]], weights: Mapping[str, float], dropout: float, rng: StepRandom
) -> list[str | None]:
    """A kind of text for each row of a batch, drawn anew in each step (DALL-E 3 report, sections 3.1 and 3.4).

    A kind is drawn with probability proportional to its weight, for example ``{"caption": 0.05, "dsc": 0.95}``, and
    none at all with probability ``dropout`` (classifier-free guidance). The draws come from the streams
    ``caption_kind`` and ``caption_dropout``. Raises ValueError for weights that cannot be drawn from.
    """
    kinds = _checked(texts, weights)
    shares = np.array([weights[kind] for kind in kinds], dtype=np.float64)
    bounds = np.cumsum(shares / shares.sum())
    drawn = rng.uniform("caption_kind").cpu().numpy().astype(np.float64)
    chosen = np.minimum(np.searchsorted(bounds, drawn, side="right"), len(kinds) - 1)
    is_dropped = rng.uniform("caption_dropout").cpu().numpy() < dropout
    return [
        None if dropped else kinds[kind] for kind, dropped in zip(chosen.tolist(), is_dropped.tolist(), strict=True)
    ]


def text_of(texts: Mapping[str, Sequence[str | None]], kind: str, row: int) -> str:
    """A row's text of a kind, or its raw caption where it has none of it."""
    text = texts[kind][row]
    return text if text is not None else texts[RAW][row] or ""


def _checked(texts: Mapping[str, Sequence[str | None]], weights: Mapping[str, float]) -> list[str]:
    kinds = [kind for kind, weight in weights.items() if weight > 0]
    missing = [kind for kind in kinds if kind not in texts]
    if missing:
        raise ValueError(f"the rows have no texts of kind {', '.join(missing)}; they have {', '.join(sorted(texts))}")
    if not kinds or any(weight < 0 for weight in weights.values()):
        raise ValueError(f"caption weights {dict(weights)}: give at least one above 0 and none below")
    return kinds
