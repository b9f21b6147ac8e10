"""Some rows of a larger array or column, in an order of their own, read when they are asked for.

What belongs here: views by which a training reads memory-mapped rows without loading them. What does not: the mapped
files (``components.data.scratch``).
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike

_ROWS_PER_READ = 4096


class PickedArray:
    """``base[picked]`` of a memory-mapped array (N, ...), copied only where it is indexed.

    ``picked``: positions in ``base``, int64 (M,).
    """

    def __init__(self, base: np.ndarray, picked: np.ndarray) -> None:
        self.base, self.picked = base, picked

    @property
    def shape(self) -> tuple[int, ...]:
        """(M, ...), as of an array."""
        return (len(self.picked), *self.base.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """The base's."""
        return self.base.dtype

    @property
    def ndim(self) -> int:
        """The base's."""
        return self.base.ndim

    def __len__(self) -> int:
        return len(self.picked)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.array(self.base[self.picked[rows]])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def subset(self, chosen: np.ndarray) -> PickedArray:
        """The chosen rows (positions in this view) as a view of the same base."""
        return PickedArray(self.base, self.picked[chosen])


class PickedTexts(Sequence[str | None]):
    """``base[picked]`` of a column of texts that may be memory-mapped.

    ``picked``: positions in ``base``, int64 (M,).
    """

    def __init__(self, base: pa.ChunkedArray, picked: np.ndarray) -> None:
        self.base, self.picked = base, picked

    def __len__(self) -> int:
        return len(self.picked)

    @overload
    def __getitem__(self, rows: int) -> str | None: ...
    @overload
    def __getitem__(self, rows: slice) -> list[str | None]: ...
    def __getitem__(self, rows: int | slice) -> str | list[str | None] | None:
        if isinstance(rows, slice):
            return self.base.take(pa.array(self.picked[rows])).to_pylist()
        return self.base[int(self.picked[operator.index(rows)])].as_py()

    def __iter__(self) -> Iterator[str | None]:
        for first in range(0, len(self), _ROWS_PER_READ):
            yield from self[first : first + _ROWS_PER_READ]

    def subset(self, chosen: np.ndarray) -> PickedTexts:
        """The chosen rows (positions in this view) as a view of the same base."""
        return PickedTexts(self.base, self.picked[chosen])
