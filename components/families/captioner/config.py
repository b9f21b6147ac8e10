"""Settings of the captioners. Torch-free; ``build`` imports the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from components.contracts import Frozen, Rows

if TYPE_CHECKING:
    from .objective import CaptionerFamily


class CaptionerConfig(Frozen):
    """A convolutional tower before a GPT-2 decoder.

    Where there is a parent ``base_captioner`` (or ``pretrained``), network and tokenizer are its own, and the fields on
    shape are not read.
    """

    family: Literal["captioner"] = "captioner"
    text_kind: str = Field(default="caption", description="Kind of text to learn; rows without one are left out.")
    tower_widths: tuple[int, ...] = Field(default=(32, 48, 96, 128), description="Channels of each 3x3 convolution.")
    tower_strides: tuple[int, ...] = Field(default=(2, 1, 2, 2), description="Stride of each 3x3 convolution.")
    decoder_width: int = Field(default=128, description="Width of the decoder.", gt=0)
    decoder_layers: int = Field(default=2, description="Layers of the decoder.", gt=0)
    decoder_heads: int = Field(default=4, description="Attention heads of the decoder.", gt=0)
    decoder_expansion: int = Field(
        default=2, description="Width within the feed-forward layers over the decoder's.", gt=0
    )
    vocab_size: int = Field(default=512, description="Upper bound of the tokenizer's vocabulary.", ge=260)
    max_length: int = Field(default=40, description="Longest caption in tokens; the rest is cut off.", gt=1)
    contrastive_weight: float = Field(
        default=0.0, description="Weight of the contrastive loss against the parent clip's text encoder.", ge=0
    )
    max_shift: int = Field(default=1, description="Largest shift of a training picture in pixels.", ge=0)
    pretrained: str | None = Field(default=None, description="Folder or hub id of a checkpoint to start from")
    seed: int = Field(default=0, description="Seed of the initial weights.")

    def build(self, train: Rows, evaluation: Rows, parents: Mapping[str, Path]) -> CaptionerFamily:
        """The family: a fine-tune of ``parents["base_captioner"]``, or of ``pretrained``, or new.

        ``parents["clip"]`` is needed where ``contrastive_weight`` is above 0. Raises ValueError where it is missing or
        no row has a text of ``text_kind``.
        """
        from .objective import CaptionerFamily

        return CaptionerFamily(self, train, evaluation, parents)
