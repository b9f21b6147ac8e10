"""Settings of the attribute judge. Torch-free; ``build`` imports the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from components.contracts import Frozen, Rows

if TYPE_CHECKING:
    from components.data.scene_graph import Scene

    from .objective import AttributeJudgeFamily


class JudgeConfig(Frozen):
    """A convolutional reader of scenes, with one set of classifiers for every place of the picture."""

    family: Literal["attribute_judge"] = "attribute_judge"
    pretrained: str | None = Field(default=None, description="Folder or hub id of a checkpoint to start from")
    hidden_sizes: tuple[int, ...] = Field(default=(48, 64, 96, 96), description="Channels of each 3x3 convolution")
    strides: tuple[int, ...] = Field(default=(2, 1, 2, 2), description="Stride of each convolution")
    features_per_place: int = Field(default=32, description="Features of each place", gt=0)
    reads_style: bool | None = Field(
        default=None, description="Tell filled, outlined and striped objects apart; none: where the scenes have styles"
    )
    reads_text: bool | None = Field(
        default=None, description="Read one to three letters drawn as an object; none: where the scenes have them"
    )
    blur: float = Field(default=0.5, description="Share of pictures that are blurred", ge=0, le=1)
    bleed: float = Field(default=0.5, description="Share of pictures whose colours bleed", ge=0, le=1)
    mix: float = Field(default=0.3, description="Share of places taken from another picture", ge=0, le=1)
    noise: float = Field(default=0.08, description="Largest noise, as a share of white", ge=0)
    max_shift: int = Field(default=1, description="Largest shift, in pixels at side 32", ge=0)
    tint: float = Field(default=0.06, description="Largest change of brightness and contrast", ge=0)
    half: Literal["first", "second"] | None = Field(
        default=None,
        description="Learn from one half of the rows alone, by the hash of their keys; none learns from all",
    )
    seed: int = Field(default=0, description="Seed of the initial weights")

    def build(self, train: Rows, evaluation: Rows, parents: Mapping[str, Path]) -> AttributeJudgeFamily:
        """The judge, new or from ``pretrained``; it has no parents.

        ValueError where the rows carry no scenes: such a data set has no judge.
        """
        from .model import build_model
        from .objective import AttributeJudgeFamily

        return AttributeJudgeFamily(build_model(self.reading(train.scenes or ())), self, train, evaluation)

    def reading(self, scenes: Sequence[Scene]) -> JudgeConfig:
        """The same settings with what they leave open decided by what the scenes hold."""
        objects = [item for scene in scenes for item in scene.objects]
        held = {
            "reads_style": any(item.style != "filled" for item in objects),
            "reads_text": any(bool(item.text) for item in objects),
        }
        return self.model_copy(update={name: value for name, value in held.items() if getattr(self, name) is None})
