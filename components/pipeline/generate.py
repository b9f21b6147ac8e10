"""Pictures from the champion, for people: prompts in, files out.

What belongs here: which version draws, and with which decoder and prompts. What does not: sampling itself (families).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.data.lake import Lake

from .decoding import Decoder, plain_decoder, two_step_decoder
from .judging import load_upsampler
from .progress import silence_libraries
from .workspace import UnfitParent, Workspace

if TYPE_CHECKING:
    from PIL import Image

DECODERS = ("vae", "consistency")


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture: what was asked, what the model read, and how it was drawn."""

    prompt: str
    written: str
    seed: int
    decoder: str
    image: Image.Image

    @property
    def name(self) -> str:
        """A file name that holds nothing of the prompt but its digest."""
        return f"{hashlib.sha256(self.prompt.encode()).hexdigest()[:8]}-seed{self.seed}-{self.decoder}.png"


class Artist:
    """The text-to-image model of an alias (``champion``, ``candidate``) with both decoders, each loaded once."""

    def __init__(self, ws: Workspace, alias: str = "champion") -> None:
        from components.families.latent_diffusion.sample import load_pipeline

        silence_libraries()
        self.version, folder = folder_of_alias(ws, "latent_diffusion", alias)
        self.pipeline = load_pipeline(folder)
        self.ws, self.alias, self.config = ws, alias, ws.recipe.evaluation
        self.upsample: Callable[[Sequence[str]], list[str]] | None = load_upsampler(ws)

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
            Drawing(prompt, text, seed, decoder, _picture(pixels[decoder][number]))
            for number, (prompt, text, seed) in enumerate(asked)
            for decoder in decoders
        ]

    def _decoder(self, name: str) -> Decoder:
        return self._plain if name == "vae" else self._two_step

    @cached_property
    def _plain(self) -> Decoder:
        return plain_decoder(self.ws.model_folder("vae"), self.config)

    @cached_property
    def _two_step(self) -> Decoder:
        return two_step_decoder(folder_of_alias(self.ws, "consistency_decoder", self.alias)[1], self.config)


def folder_of_alias(ws: Workspace, asset: str, alias: str) -> tuple[str, Path]:
    """The registered version (``name/number``) that an alias names, and a local path to its folder.

    Raises :class:`UnfitParent` where there is none.
    """
    version = ws.tracker.by_alias(ws.registry_name(asset), alias)
    if version is None:
        raise UnfitParent(
            f"{asset} has no {alias} for dataset {ws.dataset.name!r} and recipe {ws.recipe.name!r}; materialize it and "
            "the evaluation_report, whose gate makes champions"
        )
    place, _, name = version.uri.rstrip("/").rpartition("/")
    return str(version), Lake(place).fetch_folder(name, ws.scratch)


def write_drawings(drawings: Sequence[Drawing], folder: Path) -> list[Path]:
    """Each drawing as a PNG whose text chunks say how it was made; the files' paths."""
    from PIL.PngImagePlugin import PngInfo

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for drawing in drawings:
        facts = PngInfo()
        said: dict[str, Any] = {"prompt": drawing.prompt, "written": drawing.written, "seed": drawing.seed}
        for name, value in {**said, "decoder": drawing.decoder}.items():
            facts.add_itxt(name, str(value))
        path = folder / drawing.name
        partial = path.with_suffix(".partial")
        drawing.image.save(partial, format="PNG", pnginfo=facts)
        paths.append(partial.replace(path))
    return paths


def _picture(pixels: np.ndarray) -> Image.Image:
    from PIL import Image

    return Image.fromarray(pixels)
