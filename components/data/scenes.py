"""The procedural world ``scenes``: one name for all of it, and the reader that makes it a source of rows.

What belongs here: the public list and the reader. What does not: how a scene comes about (``scene_graph``), looks
(``scene_rendering``), is told (``scene_captions``) or is compared with a text (``scene_facts``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from components.contracts import SourceRow
from components.data.scene_captions import (
    NOISE,
    Noise,
    dsc,
    freely_phrased,
    prompt_facts,
    prompts,
    raw_caption,
    raw_kind,
    relation_prompt,
    ssc,
)
from components.data.scene_facts import Facts, Match, StatedObject, facts_of, matches, parse_facts
from components.data.scene_graph import (
    BACKGROUND_RGB,
    BACKGROUNDS,
    COLOR_RGB,
    COLORS,
    PLACES,
    PLAIN,
    SHAPES,
    SIZES,
    STYLES,
    Scene,
    SceneObject,
    SceneOptions,
    index_of,
    key_for,
    scene_for,
)
from components.data.scene_rendering import check_resolution, encode_png, render

__all__ = [
    "BACKGROUNDS",
    "BACKGROUND_RGB",
    "COLORS",
    "COLOR_RGB",
    "NOISE",
    "PLACES",
    "SHAPES",
    "SIZES",
    "STYLES",
    "Facts",
    "Match",
    "Noise",
    "Scene",
    "SceneObject",
    "SceneOptions",
    "ScenesReader",
    "StatedObject",
    "dsc",
    "encode_png",
    "facts_of",
    "freely_phrased",
    "index_of",
    "key_for",
    "matches",
    "parse_facts",
    "prompt_facts",
    "prompts",
    "raw_caption",
    "raw_kind",
    "relation_prompt",
    "render",
    "scene_for",
    "ssc",
]

LICENSE = "CC0-1.0"
_BATCH = 512  # rows drawn at once; what a reader holds in memory does not grow with the shard


@dataclass(frozen=True, slots=True)
class ScenesReader:
    """The first ``num_rows`` scenes of the world ``seed`` as a source (``contracts.Reader``).

    ``resolution`` is the picture's side in pixels. Shards are ``scenes://seed=0/00003``. A row's ``extra`` holds the
    true captions ``ssc`` and ``dsc``, for example sets alone.
    """

    num_rows: int
    rows_per_shard: int
    seed: int = 0
    resolution: int = 32
    noise: Noise = "web"
    options: SceneOptions = PLAIN

    def __post_init__(self) -> None:
        for name in ("num_rows", "rows_per_shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: scenes need at least 1")
        if self.noise not in NOISE:
            raise ValueError(f"noise={self.noise!r}: expected one of {', '.join(NOISE)}")
        check_resolution(self.resolution)

    def shards(self) -> Sequence[str]:
        """URIs of the shards, all of ``rows_per_shard`` rows but the last."""
        num_shards = -(-self.num_rows // self.rows_per_shard)
        return [f"scenes://seed={self.seed}/{shard:05d}" for shard in range(num_shards)]

    def state(self, shard: int) -> str:
        """The shard's URI: a world never changes."""
        return self.shards()[shard]

    def read(self, shard: int) -> Iterator[SourceRow]:
        """Rows of one shard with their pictures as PNG; IndexError where there is no such shard."""
        numbers = self._numbers(shard)
        for start in range(0, len(numbers), _BATCH):
            batch = numbers[start : start + _BATCH]
            scenes = [self.scene(index) for index in batch]
            for index, scene, pixels in zip(batch, scenes, render(scenes, self.resolution), strict=True):
                yield self._row(shard, index, scene, encode_png(pixels))

    def extras(self, shard: int) -> Iterator[SourceRow]:
        """Rows of one shard without pictures; IndexError where there is no such shard."""
        for index in self._numbers(shard):
            yield self._row(shard, index, self.scene(index), None)

    def scene(self, index: int) -> Scene:
        """The truth behind the row at ``index``."""
        return scene_for(index, self.seed, self.options)

    def _numbers(self, shard: int) -> range:
        num_shards = len(self.shards())
        if not 0 <= shard < num_shards:
            raise IndexError(f"scenes://seed={self.seed} has {num_shards} shards, from 0; there is no shard {shard}")
        return range(self.num_rows)[shard * self.rows_per_shard : (shard + 1) * self.rows_per_shard]

    def _row(self, shard: int, index: int, scene: Scene, image: bytes | None) -> SourceRow:
        key = key_for(index)
        return SourceRow(
            key=key,
            image=image,
            caption=raw_caption(scene, index, self.seed, self.noise),
            source=f"scenes://seed={self.seed}/{shard:05d}#{key}",
            license=LICENSE,
            extra={"ssc": ssc(scene), "dsc": dsc(scene)},
        )
