"""What the T5 is made of and what it reads. No knob of the training loop belongs here, and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from components.contracts import Frozen, Rows

if TYPE_CHECKING:
    from .objective import FrozenTextEncoder, PromptUpsamplerFamily


class EndpointConfig(Frozen):
    """A language model behind an OpenAI-compatible endpoint, which rewrites prompts in the T5's place."""

    base_url: str = Field(description="Address up to and without /chat/completions, for example http://host:8000/v1.")
    model: str = Field(description="The model's name at the endpoint.")
    template: str = Field(
        default="Rewrite this prompt for a picture as one descriptive caption in the style of the examples that the "
        "picture model learned from: subject, surroundings, background, colours and places, without any preamble. "
        "Keep everything that it says. Prompt: {prompt}",
        description="What the model is asked; {prompt} stands for the user's prompt.",
    )
    key_variable: str | None = Field(
        default=None, description="Environment variable that holds the key; none sends no key.", pattern=r"^[A-Z_0-9]+$"
    )
    temperature: float = Field(default=0.0, description="Of the model's sampling.", ge=0)
    max_tokens: int = Field(default=160, description="Longest answer in tokens.", gt=0)
    seed: int = Field(default=0, description="Sent with each request, for endpoints that honour it.")
    timeout_seconds: float = Field(default=60.0, description="For one request.", gt=0)
    num_retries: int = Field(default=5, description="Further attempts after a failure that may pass.", ge=0)
    first_wait_seconds: float = Field(default=1.0, description="Before the second attempt; doubled each time.", ge=0)
    num_parallel: int = Field(default=4, description="Requests at a time.", gt=0)

    @field_validator("base_url")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
            raise ValueError("give an http(s) address without user, password and query; keys come from key_variable")
        return value.rstrip("/")

    @field_validator("template")
    @classmethod
    def _holds_prompt(cls, value: str) -> str:
        if "{prompt}" not in value:
            raise ValueError("the template must hold {prompt}")
        return value

    def identity(self) -> dict[str, Any]:
        """What decides an answer, for caches and fingerprints; not how patiently it is asked for."""
        patience = {"key_variable", "timeout_seconds", "num_retries", "first_wait_seconds", "num_parallel"}
        return self.model_dump(mode="json", exclude=patience)


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
