"""Captions that a frozen text encoder has read once.

What belongs here: the cached embeddings of all rows and kinds. What does not: which caption a step sees
(``components.data.blend``) and where the files lie (the pipeline's cache).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from components.contracts import ArrayCache
from components.data.blend import text_of

_ROWS_PER_BATCH = 256  # fixed: the last bits of an embedding may depend on it


@dataclass(frozen=True, slots=True)
class TextEmbeddings:
    """float16 (N, L, D) by kind of caption, memory-mapped, and the empty caption's (L, D)."""

    by_kind: Mapping[str, np.ndarray]
    empty: np.ndarray

    @classmethod
    def of_texts(
        cls,
        texts: Mapping[str, Sequence[str | None]],
        kinds: Mapping[str, float],
        encode: Callable[[Sequence[str]], np.ndarray],
        cache: ArrayCache,
    ) -> TextEmbeddings:
        """The embeddings of all rows; ``encode`` gives float32 (B, L, D) and is called only for what is not cached."""
        empty = encode([""])[0].astype(np.float16)

        def encoded(kind: str) -> Iterator[np.ndarray]:
            for first in range(0, len(texts[kind]), _ROWS_PER_BATCH):
                rows = range(first, min(first + _ROWS_PER_BATCH, len(texts[kind])))
                yield from encode([text_of(texts, kind, row) for row in rows])

        return cls(
            {
                kind: cache(f"text-{kind}", (len(texts[kind]), *empty.shape), np.dtype(np.float16), encoded(kind))
                for kind in kinds
            },
            empty,
        )

    def of(self, kinds: Sequence[str | None], rows: np.ndarray) -> torch.Tensor:
        """float32 (B, L, D): each row's caption of its kind, the empty caption where there is none."""
        picked = [
            self.empty if kind is None else self.by_kind[kind][row] for kind, row in zip(kinds, rows, strict=True)
        ]
        return torch.from_numpy(np.stack(picked).astype(np.float32))
