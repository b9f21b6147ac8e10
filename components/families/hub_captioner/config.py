"""Which checkpoint, what it is asked and how it answers. Torch-free; ``build`` imports the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from components.contracts import Frozen, Rows

if TYPE_CHECKING:
    from .model import HubCaptionerFamily

SETTINGS_FILE = "hub_captioner.json"  # tells a hub captioner's folder
SSC_PROMPT = "Name only the main subject of this picture, in a few words and without any preamble."
DSC_PROMPT = (
    "Describe this picture in one detailed sentence: subject, surroundings, background, written words, style and "
    "colours. Do not begin with 'the image'."
)


class HubCaptionerConfig(Frozen):
    """A stock image-text-to-text model, kept as it is (``num_steps`` must be 0)."""

    family: Literal["hub_captioner"] = "hub_captioner"
    pretrained: str | None = Field(
        default=None,
        description="Folder or hub id of a model with its processor; without one, the parent base_captioner's.",
    )
    prompt: str = Field(default="", description="What the model is asked; empty for models that take no prompt.")
    max_new_tokens: int = Field(default=96, description="Longest answer in tokens.", gt=0)
    num_beams: int = Field(default=1, description="Width of the beam search; 1 is greedy.", gt=0)
    batch_size: int = Field(default=32, description="Pictures in one generation.", gt=0)
    min_side: int = Field(
        default=224, description="Smaller pictures are enlarged to this side before the processor.", gt=0
    )

    def build(self, train: Rows, evaluation: Rows, parents: Mapping[str, Path]) -> HubCaptionerFamily:
        """The family, from ``pretrained`` or from ``parents["base_captioner"]``.

        Raises ValueError where neither is given or the checkpoint takes no pictures.
        """
        from .model import HubCaptionerFamily

        return HubCaptionerFamily(self, evaluation, parents)
