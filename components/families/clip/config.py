"""Settings of CLIP. Torch-free; ``build`` imports the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from components.contracts import Frozen, Rows

if TYPE_CHECKING:
    from .objective import ClipFamily


class ClipConfig(Frozen):
    """A ``CLIPModel`` with its own tokenizer, or a checkpoint to go on from."""

    family: Literal["clip"] = "clip"
    text_kinds: tuple[str, ...] = Field(
        default=("caption",),
        description="Kinds of text to learn from, each as often; those that the rows lack are left out, without any "
        "the raw caption is taken.",
        min_length=1,
    )
    patch_size: int = Field(default=4, description="Side of a picture token in pixels.", gt=0)
    vision_width: int = Field(default=64, description="Width of the picture encoder.", gt=0)
    vision_layers: int = Field(default=2, description="Layers of the picture encoder.", gt=0)
    vision_heads: int = Field(default=4, description="Attention heads of the picture encoder.", gt=0)
    text_width: int = Field(default=64, description="Width of the text encoder.", gt=0)
    text_layers: int = Field(default=2, description="Layers of the text encoder.", gt=0)
    text_heads: int = Field(default=4, description="Attention heads of the text encoder.", gt=0)
    projection_dim: int = Field(default=128, description="Length of the embeddings.", gt=0)
    vocab_size: int = Field(default=1024, description="Upper bound of the tokenizer's vocabulary.", ge=260)
    max_length: int = Field(default=40, description="Longest text in tokens; the rest is cut off.", gt=1)
    max_shift: int = Field(default=1, description="Largest shift of a training picture in pixels.", ge=0)
    pretrained: str | None = Field(default=None, description="Folder or hub id of a checkpoint to start from")
    seed: int = Field(default=0, description="Seed of the initial weights.")

    def build(self, train: Rows, evaluation: Rows, parents: Mapping[str, Path]) -> ClipFamily:
        """The family, new or from ``pretrained``; it has no parents.

        Raises ValueError where there are no rows or the pictures cannot be cut into patches.
        """
        from .objective import ClipFamily

        return ClipFamily(self, train, evaluation)
