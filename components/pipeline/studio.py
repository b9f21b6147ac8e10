"""The champion's artist at hand for many askers: always the newest one, and one drawing at a time.

What belongs here: what may be asked for, and which artist answers now. What does not: drawing itself (``generate``) and
how it is asked (a page, a command).
"""

from __future__ import annotations

from threading import Lock

from pydantic import Field, ValidationError

from components.contracts import Frozen

from .generate import Artist, Drawing, versions_of_alias
from .workspace import Workspace

MAX_PROMPT_LENGTH = 500
MAX_SEED = 2**32 - 1
MAX_PICTURES = 8
MAX_STEPS = 100
MAX_GUIDANCE = 20.0


class Wish(Frozen):
    """What somebody wants drawn; its limits keep one asker from taking the machine from the others."""

    prompt: str = Field(description="What to draw.", min_length=1, max_length=MAX_PROMPT_LENGTH)
    seed: int = Field(default=0, description="Seed of the first picture; the others' follow.", ge=0, le=MAX_SEED)
    num_pictures: int = Field(default=1, description="Pictures of the prompt.", ge=1, le=MAX_PICTURES)
    num_inference_steps: int = Field(description="Sampling steps.", ge=1, le=MAX_STEPS)
    guidance_scale: float = Field(description="Classifier-free guidance, 1 is none.", ge=1, le=MAX_GUIDANCE)
    is_upsampled: bool = Field(default=False, description="Whether the prompt is made descriptive first.")


class Studio:
    """An alias's artist, loaded when it is first needed and again when the alias has moved.

    Any number of threads may ask. They are served one after another, for a pipeline keeps the state of its sampling.
    """

    def __init__(self, ws: Workspace, alias: str = "champion") -> None:
        self.ws, self.alias = ws, alias
        self._artist: Artist | None = None
        self._lock = Lock()

    def versions(self) -> dict[str, str]:
        """The registered version (``name/number``) of each asset that the alias names now; nothing is loaded."""
        return {asset: str(version) for asset, version in versions_of_alias(self.ws, self.alias).items() if version}

    def draw(self, wish: Wish) -> tuple[Artist, list[Drawing]]:
        """The pictures of a wish through each decoder that the artist has, and the artist who drew them.

        Raises :class:`UnfitParent` where the alias names no text-to-image model, ValueError where prompts cannot be
        upsampled.
        """
        with self._lock:
            if self._artist is None or not self._artist.is_current():
                self._artist = Artist(self.ws, self.alias)
            return self._artist, self._artist.draw(
                [wish.prompt],
                [(wish.seed + number) % (MAX_SEED + 1) for number in range(wish.num_pictures)],
                decoders=self._artist.decoders,
                is_upsampled=wish.is_upsampled,
                num_inference_steps=wish.num_inference_steps,
                guidance_scale=wish.guidance_scale,
            )


def read_wish(**asked: object) -> Wish:
    """A wish from what somebody typed in. Raises ValueError naming each field that is out of its limits."""
    try:
        return Wish.model_validate(asked)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ValueError("; ".join(problems)) from error
