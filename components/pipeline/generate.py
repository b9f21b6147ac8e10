"""Pictures from the champion, for people: prompts in, files out.

What belongs here: which version draws, and with which decoder and prompts. What does not: sampling itself (families).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.contracts import ModelVersion
from components.data.lake import Lake

from .decoding import Decoder, plain_decoder, two_step_decoder
from .judging import load_upsampler
from .progress import silence_libraries
from .workspace import UnfitParent, Workspace

if TYPE_CHECKING:
    from PIL import Image

DECODERS = ("vae", "consistency")
ASSETS = ("latent_diffusion", "consistency_decoder")  # what an alias must name for all of DECODERS


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture: what was asked, what the model read, and how it was drawn.

    ``written`` is the prompt after upsampling (the prompt itself without); ``read`` is what the text encoder's tokens
    hold of it, because a long prompt is cut off.
    """

    prompt: str
    written: str
    read: str
    seed: int
    decoder: str
    image: Image.Image

    @property
    def name(self) -> str:
        """A file name that holds nothing of the prompt but its digest."""
        return f"{hashlib.sha256(self.prompt.encode()).hexdigest()[:8]}-seed{self.seed}-{self.decoder}.png"

    def png(self) -> bytes:
        """The picture as a PNG file whose text chunks say how it was made."""
        from PIL.PngImagePlugin import PngInfo

        facts = PngInfo()
        for name in ("prompt", "written", "seed", "decoder"):
            facts.add_itxt(name, str(getattr(self, name)))
        data = io.BytesIO()
        self.image.save(data, format="PNG", pnginfo=facts)
        return data.getvalue()


class Artist:
    """The text-to-image model of an alias (``champion``, ``candidate``) with both decoders, each loaded once.

    The versions are those that the alias named when the artist was made. Raises :class:`UnfitParent` where it names no
    text-to-image model.
    """

    def __init__(self, ws: Workspace, alias: str = "champion") -> None:
        from components.families.latent_diffusion.sample import load_pipeline

        silence_libraries()
        self.ws, self.alias, self.config = ws, alias, ws.recipe.evaluation
        self.versions = versions_of_alias(ws, alias)
        self.folder = self._folder("latent_diffusion")
        self.pipeline = load_pipeline(self.folder)
        self.upsample: Callable[[Sequence[str]], list[str]] | None = load_upsampler(ws)

    @property
    def decoders(self) -> tuple[str, ...]:
        """The decoders that can draw: the student only where the alias names a version of it."""
        return DECODERS if self.versions["consistency_decoder"] else DECODERS[:1]

    def is_current(self) -> bool:
        """Whether the alias still names the versions that this artist draws with."""
        return self.versions == versions_of_alias(self.ws, self.alias)

    def read(self, text: str) -> str:
        """What is left of a text after the text encoder's tokenizer, which cuts it off at its longest length."""
        tokenizer: Any = self.pipeline.tokenizer
        return tokenizer.decode(tokenizer(text, truncation=True).input_ids, skip_special_tokens=True).strip()

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        decoders: Sequence[str] = ("vae",),
        is_upsampled: bool = False,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> list[Drawing]:
        """A picture of each prompt with each seed through each decoder; the recipe's steps and guidance by default.

        Raises ValueError where prompts shall be upsampled and the recipe has nothing that can.
        """
        from components.families.latent_diffusion.sample import generate_latents

        written = list(prompts)
        if is_upsampled:
            if self.upsample is None:
                raise ValueError("this recipe's text encoder comes from the hub and rewrites no prompts; do without it")
            written = self.upsample(prompts)
        asked = [(prompt, text, seed) for prompt, text in zip(prompts, written, strict=True) for seed in seeds]
        latents = generate_latents(
            self.pipeline,
            [text for _, text, _ in asked],
            [seed for _, _, seed in asked],
            num_inference_steps=num_inference_steps or self.config.num_inference_steps,
            guidance_scale=self.config.guidance_scale if guidance_scale is None else guidance_scale,
            batch_size=self.config.batch_size,
        )
        pixels = {decoder: self._decoder(decoder).decode(latents) for decoder in decoders}
        return [
            Drawing(prompt, text, self.read(text), seed, decoder, _picture(pixels[decoder][number]))
            for number, (prompt, text, seed) in enumerate(asked)
            for decoder in decoders
        ]

    def _decoder(self, name: str) -> Decoder:
        return self._plain if name == "vae" else self._two_step

    @cached_property
    def _plain(self) -> Decoder:
        return plain_decoder(self.folder / "vae", self.config)

    @cached_property
    def _two_step(self) -> Decoder:
        return two_step_decoder(self._folder("consistency_decoder"), self.config)

    def _folder(self, asset: str) -> Path:
        """A local path to the model folder of the alias's version."""
        version = self.versions[asset]
        if version is None:
            raise UnfitParent(
                f"{asset} has no {self.alias} for dataset {self.ws.dataset.name!r} and recipe "
                f"{self.ws.recipe.name!r}; materialize it and the evaluation_report, whose gate makes champions"
            )
        place, _, name = version.uri.rstrip("/").rpartition("/")
        return Lake(place).fetch_folder(name, self.ws.scratch)


def versions_of_alias(ws: Workspace, alias: str) -> dict[str, ModelVersion | None]:
    """The registered version of each of ``ASSETS`` that the alias names now; None where there is none."""
    return {asset: ws.tracker.by_alias(ws.registry_name(asset), alias) for asset in ASSETS}


def write_drawings(drawings: Sequence[Drawing], folder: Path) -> list[Path]:
    """Each drawing as a PNG file (:meth:`Drawing.png`); the files' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for drawing in drawings:
        path = folder / drawing.name
        partial = path.with_suffix(".partial")
        partial.write_bytes(drawing.png())
        paths.append(partial.replace(path))
    return paths


def _picture(pixels: np.ndarray) -> Image.Image:
    from PIL import Image

    return Image.fromarray(pixels)
