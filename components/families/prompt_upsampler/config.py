"""What the T5 is made of and what it reads. No knob of the training loop belongs here, and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from components.contracts import Frozen, Rows

if TYPE_CHECKING:
    from .objective import FrozenTextEncoder, PromptUpsamplerFamily


class PromptUpsamplerConfig(Frozen):
    """A stock T5ForConditionalGeneration, or the encoder of a hub T5 that is kept as it is."""

    family: Literal["prompt_upsampler"] = "prompt_upsampler"
    pretrained: str | None = Field(
        default=None,
        description="Folder or hub id of a T5, whose encoder alone is kept, untrained (num_steps must be 0); there is "
        "no prompt upsampling then.",
    )
    vocab_size: int = Field(default=1024, description="Upper bound of the tokenizer's vocabulary.", ge=260)
    max_length: int = Field(
        default=64,
        description="Upper bound of a prompt in tokens; the longest synthetic caption sets the length used.",
        gt=1,
    )
    d_model: int = Field(default=128, description="Width of the model.", gt=0)
    d_ff: int = Field(default=256, description="Width of the feed-forward layers.", gt=0)
    num_layers: int = Field(default=2, description="Layers of the encoder, and of the decoder.", gt=0)
    num_heads: int = Field(default=8, description="Attention heads; must divide d_model.", gt=0)
    has_offset_heads: bool = Field(
        default=True,
        description="Start each of the encoder's heads looking at one neighbour (-1, +1, -2, +2 ...): colours and "
        "places bind to their nouns much sooner.",
    )
    source_weights: dict[str, float] = Field(
        default={"ssc": 0.7, "dsc": 0.3},
        description="How often each kind of text is the prompt that is rewritten into a dsc; a dsc is copied, so that "
        "a descriptive prompt stays as it is and the encoder has read descriptive text.",
    )

    def build(
        self, train: Rows, evaluation: Rows, parents: Mapping[str, Path]
    ) -> PromptUpsamplerFamily | FrozenTextEncoder:
        """The family; it has no parents. Rows without a dsc or without any prompt are left out.

        Raises ValueError where no row remains.
        """
        from .objective import FrozenTextEncoder, PromptUpsamplerFamily

        if self.pretrained:
            return FrozenTextEncoder(self, self.pretrained, len(train))
        return PromptUpsamplerFamily(self, train, evaluation)
