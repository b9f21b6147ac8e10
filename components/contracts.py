"""What the parts of Atelier promise each other: row types and roles, no implementations.

What belongs here: frozen values that cross a seam and Protocols with a bare role name. What does not: anything that
imports torch, ray, mlflow or a sibling package when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image


class Frozen(BaseModel):
    """Root of every configuration that is typed in by people: immutable, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------------------------------------------------------- data
@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row as a reader found it, before any check.

    ``image`` is the encoded picture as it lay in the source, or None with ``problem`` set to a (reason, detail) pair.
    ``extra`` holds the other columns of the row, for example-set templates.
    """

    key: str
    image: bytes | None
    caption: str | None
    source: str
    license: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    problem: tuple[str, str] | None = None


class Reader(Protocol):
    """A source of image-caption rows, cut into shards."""

    def shards(self) -> Sequence[str]:
        """URIs of the source's shards in a stable order; the position is the partition's number."""
        ...

    def state(self, shard: int) -> str:
        """A text that changes when the shard's content does, told without reading it (size, time, etag)."""
        ...

    def read(self, shard: int) -> Iterator[SourceRow]:
        """Rows of one shard in the source's order. A bad row is yielded with ``problem`` set, never raised."""
        ...

    def extras(self, shard: int) -> Iterator[SourceRow]:
        """Like :meth:`read` without pictures (``image`` is None): keys, captions and other columns."""
        ...


@dataclass(frozen=True, slots=True)
class Rows:
    """Pictures and texts that a family learns from, all of the same length and in the same order.

    Columns may be memory-mapped views (``data.picked``): index them, with a slice or row numbers, before computing.
    ``pixels``: uint8 (N, H, W, 3). ``texts``: by kind (``caption``, ``ssc``, ``dsc``); None
    where a row has no such text. ``latents``: float16 (N, C, h, w) or None. ``scenes``: ground truth
    (``data.scenes.Scene``) per row where the data set has it, else None.
    """

    keys: Sequence[str]
    pixels: np.ndarray
    texts: Mapping[str, Sequence[str | None]]
    latents: np.ndarray | None = None
    scenes: Sequence[Any] | None = None

    def __len__(self) -> int:
        return len(self.keys)


# ------------------------------------------------------------------------------------------------------------ training
@dataclass(frozen=True, slots=True)
class Loss:
    """A differentiable scalar and the detached scalar tensors to be logged beside it."""

    value: torch.Tensor
    scalars: Mapping[str, torch.Tensor] = field(default_factory=dict)


class StepRandom(Protocol):
    """Randomness of one step: every draw is a function of (seed, step, row id, stream name) alone."""

    step: int
    rows: np.ndarray

    def normal(self, stream: str, shape: Sequence[int]) -> torch.Tensor:
        """Standard normal float32 (B, *shape)."""
        ...

    def uniform(self, stream: str, shape: Sequence[int] = ()) -> torch.Tensor:
        """Uniform float32 in [0, 1), (B, *shape)."""
        ...


class Objective(Protocol):
    """One loss with the parameters it moves. A GAN has two, all others one."""

    name: str

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """Parameters that this objective's optimizer moves."""
        ...

    def loss(self, batch: Mapping[str, Any], rng: StepRandom) -> Loss:
        """The loss of one batch."""
        ...

    def after_step(self, step: int) -> None:
        """Called after the optimizer's step ``step`` (from 0); for example a distillation target's EMA."""
        ...


class Family(Protocol):
    """A trainable model: where its batches come from, its objectives, and how it is shown and saved."""

    num_rows: int

    def batch(self, rows: np.ndarray, rng: StepRandom) -> Mapping[str, Any]:
        """Tensors for these row numbers (int64 (B,), in [0, num_rows))."""
        ...

    def objectives(self) -> Sequence[Objective]:
        """The objectives, in the order in which they step."""
        ...

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """Every module whose state a checkpoint must hold, by name."""
        ...

    def save(self, folder: Path) -> None:
        """Write a stock Hugging Face folder (safetensors)."""
        ...

    def preview(self) -> Preview:
        """Sample pictures and held-out figures with the weights as they are now."""
        ...


class ArrayCache(Protocol):
    """Keeps arrays that are dear to compute, memory-mapped, from one training to the next."""

    def __call__(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], rows: Iterable[np.ndarray]
    ) -> np.ndarray:
        """The array of a name that is unique within the family and its inputs; ``rows`` fill it where it is new."""
        ...


@runtime_checkable
class CachesInputs(Protocol):
    """A family that runs frozen networks on its rows once, and not at every step."""

    def cache_inputs(self, cache: ArrayCache) -> None:
        """Called once, before the first step and before weights are moved to a device."""
        ...


@dataclass(frozen=True, slots=True)
class Preview:
    """What a person looks at: a picture (a grid), a table of rows, and held-out figures."""

    image: Image.Image | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    rows: Sequence[Mapping[str, str]] = ()


class FamilyConfig(Protocol):
    """A frozen configuration that builds its own family; importing it must not import torch."""

    def build(self, train: Rows, evaluation: Rows, parents: Mapping[str, Path]) -> Family:
        """The family, new or from ``pretrained``; ``parents`` maps a parent asset to its local model folder."""
        ...


# ----------------------------------------------------------------------------------------------------------- captioning
class Captioner(Protocol):
    """Writes one caption for each picture."""

    def caption(self, pixels: np.ndarray, keys: Sequence[str]) -> list[str]:
        """Captions for uint8 (B, H, W, 3); sampled captions draw from a seed per key, greedy ones from none."""
        ...


# ------------------------------------------------------------------------------------------------------------ execution
@dataclass(frozen=True, slots=True)
class Resources:
    """What one worker takes."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Gang:
    """A training worker's place among its peers."""

    rank: int = 0
    world_size: int = 1


@dataclass(frozen=True, slots=True)
class Elasticity:
    """How a gang may change: the sizes it may have, ascending, and how many lost workers it survives.

    What the gang runs must go on from its own checkpoint when it is called again.
    """

    sizes: tuple[int, ...] = ()
    max_lost_workers: int = 0


RIGID = Elasticity()


class Executor(Protocol):
    """Runs work without knowing what it is."""

    def map(
        self,
        factory: Callable[[], Callable[[Any], Any]],
        items: Sequence[Any],
        *,
        resources: Resources,
        max_workers: int | None = None,
    ) -> Iterator[Any]:
        """Results of ``factory()(item)`` in the order of ``items``; each worker calls ``factory`` once.

        Raises :class:`InsufficientResources` before any work where not even one worker fits.
        """
        ...

    def fit(
        self,
        function: Callable[[Gang, Mapping[str, Any]], Mapping[str, Any]],
        config: Mapping[str, Any],
        *,
        num_workers: int,
        resources: Resources,
        elasticity: Elasticity = RIGID,
    ) -> Mapping[str, Any]:
        """Run ``function`` in a gang of ``num_workers``; the mapping that rank 0 returned.

        Two workers and more have a torch process group, one has none. Where fewer fit, or a worker is lost,
        ``elasticity`` says what becomes of the gang.

        Raises :class:`InsufficientResources` before any work where the gang does not fit.
        """
        ...


class InsufficientResources(RuntimeError):
    """The work asks for more CPUs or GPUs than there are; the message says how many and what to do."""


# ------------------------------------------------------------------------------------------------------------- tracking
class TrackedRun(Protocol):
    """One run in the tracker; only ``run_id`` crosses processes."""

    run_id: str
    url: str | None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures at a step."""
        ...

    def log_image(self, image: Image.Image, name: str) -> None:
        """Keep a picture with the run, for example ``samples/000400.png``."""
        ...

    def log_text(self, text: str, name: str) -> None:
        """Keep a text with the run."""
        ...

    def log_input(self, name: str, uri: str, digest: str, context: str) -> None:
        """Record a data set that the run read."""
        ...

    def flush(self) -> int:
        """Wait, within limits, until everything that was logged is kept; how much of it was lost."""
        ...


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered model version."""

    name: str
    version: str
    uri: str  # the model folder in the lake

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


class Tracker(Protocol):
    """Keeps runs, their lineage and the model registry."""

    uri: str | None

    def prepare(self) -> None:
        """Make the store ready once, before several processes meet there."""
        ...

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> TrackedRun:
        """Start a run; the caller ends it with :meth:`finish`."""
        ...

    def resume(self, run_id: str) -> TrackedRun:
        """The same run, in another process."""
        ...

    def finish(self, run: TrackedRun, *, failed: bool = False) -> None:
        """End the run."""
        ...

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log figures with a run that may have ended."""
        ...

    def register(
        self, name: str, folder_uri: str, *, run: TrackedRun | None, tags: Mapping[str, str], parents: Sequence[str]
    ) -> ModelVersion:
        """A new version of ``name`` that points at the model folder; ``parents`` are ``name/version`` strings."""
        ...

    def set_alias(self, version: ModelVersion, alias: str) -> None:
        """Point ``candidate`` or ``champion`` at a version."""
        ...

    def set_tags(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Add tags to a registered version, or change them."""
        ...

    def versions(self, name: str) -> list[ModelVersion]:
        """All registered versions of ``name``, in order; none where it is unknown."""
        ...

    def by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version that an alias names, or None."""
        ...
