"""What MLflow opens a registered version with: ``mlflow.pyfunc.load_model("models:/<name>@champion").predict(rows)``.

What belongs here: from a stock model folder of the registry to an object with ``predict``. What does not: MLflow (it
imports this module by name), batching for throughput and networks.

Pictures go in as bytes or base64 text of a PNG or JPEG file and come out as base64 text of a PNG file: the same in a
DataFrame and in the JSON of a scoring server.

| folder | columns in | columns out |
|---|---|---|
| text-to-image pipeline | ``prompt`` | ``image``; parameters ``seed``, ``num_inference_steps``, ``guidance_scale`` |
| captioner | ``image`` | ``caption`` |
| prompt upsampler | ``prompt`` | ``caption`` |
| CLIP | ``text`` or ``image`` or both | ``text_embeds``, ``image_embeds``, of length 1 |
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.lake import Lake
from components.execution.device import best_device

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

Answer = Callable[["pd.DataFrame", dict[str, Any]], dict[str, list[Any]]]

_BATCH = 16  # rows at a time; a prompt's picture depends on its own seed, not on its batch


class Served:
    """What ``load_model`` wraps: columns of rows in, columns of as many rows out."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """The columns of the module's table. Raises ValueError where a column is missing."""
        import pandas as pd
        import torch

        given = {name: value for name, value in (params or {}).items() if value is not None}
        with torch.inference_mode():
            return pd.DataFrame(self._answer(model_input, given))


def _load_pyfunc(data_path: str) -> Served:
    """The model that the JSON file at ``data_path`` points to (``{"uri": <model folder in the lake>}``).

    A folder on S3 is copied to ``$XDG_CACHE_HOME/atelier`` once. Raises ValueError for a folder that serves no rows.
    """
    uri = json.loads(Path(data_path).read_text())["uri"].rstrip("/")
    parent, _, name = uri.rpartition("/")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atelier"
    folder = Lake(parent or "/").fetch_folder(name, cache)
    if (folder / "model_index.json").is_file():
        return Served(_text_to_image(folder))
    if (folder / "hub_captioner.json").is_file():
        return Served(_hub_captioner(folder))
    if not (folder / "config.json").is_file():
        raise ValueError(f"{uri} holds no model (no model_index.json, no config.json); was it removed from the lake?")
    config = json.loads((folder / "config.json").read_text())
    kind, architectures = config.get("model_type"), config.get("architectures") or ()
    if kind in ("clip", "vision-text-dual-encoder"):
        return Served(_embedder(folder))
    if kind == "vision-encoder-decoder" or "AutoModelForImageTextToText" in config.get("auto_map", {}):
        return Served(_captioner(folder))
    if "T5ForConditionalGeneration" in architectures:
        return Served(_upsampler(folder))
    found = config.get("_class_name") or next(iter(architectures), kind)
    remedy = "load it with its own class's from_pretrained(folder)"
    if found in ("AutoencoderKL", "ConsistencyDecoderVAE"):
        remedy = f"pass it to a pipeline as vae=diffusers.{found}.from_pretrained(folder)"
    raise ValueError(f"{uri} is a {found}, which maps no rows to rows: {remedy}")


def _text_to_image(folder: Path) -> Answer:
    """A diffusers pipeline. ``seed`` is 0 where not given, steps and guidance are the pipeline's own."""
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    pipeline: Any = DiffusionPipeline.from_pretrained(folder).to(best_device())
    pipeline.set_progress_bar_config(disable=True)

    def answer(rows: pd.DataFrame, params: dict[str, Any]) -> dict[str, list[Any]]:
        seed = int(params.pop("seed", 0))
        images: list[str] = []
        for prompts in _batches(rows, "prompt"):
            generators = [torch.Generator().manual_seed(seed) for _ in prompts]
            images += map(_encode, pipeline(prompt=prompts, generator=generators, **params).images)
        return {"image": images}

    return answer


def _captioner(folder: Path) -> Answer:
    """A picture-to-text model; the folder is our own registered version, so code that lies in it is run."""
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    model: Any = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True).eval()
    model.to(best_device())
    processor, tokenizer = AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def answer(rows: pd.DataFrame, params: dict[str, Any]) -> dict[str, list[Any]]:
        captions: list[str] = []
        for files in _batches(rows, "image"):
            pixels = processor(images=[_decode(file) for file in files], return_tensors="pt")["pixel_values"]
            tokens = model.generate(pixel_values=pixels.to(model.device), do_sample=False)
            captions += [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]
        return {"caption": captions}

    return answer


def _hub_captioner(folder: Path) -> Answer:
    """A stock vision-language model with its prompt; pictures of all sizes, one at a time."""
    import numpy as np

    from components.families.hub_captioner.model import load_hub_captioner

    captioner = load_hub_captioner(folder, best_device())

    def answer(rows: pd.DataFrame, params: dict[str, Any]) -> dict[str, list[Any]]:
        pictures = [np.asarray(_decode(file))[None] for files in _batches(rows, "image") for file in files]
        return {"caption": [captioner.caption(picture, [""])[0] for picture in pictures]}

    return answer


def _upsampler(folder: Path) -> Answer:
    """A T5 that makes prompts descriptive."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder).to(best_device()).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    longest = min(tokenizer.model_max_length, 512)

    def answer(rows: pd.DataFrame, params: dict[str, Any]) -> dict[str, list[Any]]:
        captions: list[str] = []
        for prompts in _batches(rows, "prompt"):
            tokens = tokenizer(prompts, padding=True, truncation=True, return_tensors="pt").to(model.device)
            mask = tokens.attention_mask
            written = model.generate(tokens.input_ids, attention_mask=mask, max_new_tokens=longest, do_sample=False)
            captions += [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]
        return {"caption": captions}

    return answer


def _embedder(folder: Path) -> Answer:
    """CLIP's two towers, each for the column that is there."""
    from torch.nn.functional import normalize
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model: Any = AutoModel.from_pretrained(folder).to(best_device()).eval()
    processor, tokenizer = AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def text(rows: list[str]) -> Any:
        tokens = tokenizer(rows, padding=True, truncation=True, return_tensors="pt").to(model.device)
        return model.get_text_features(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)

    def image(rows: list[bytes | str]) -> Any:
        pixels = processor(images=[_decode(row) for row in rows], return_tensors="pt")["pixel_values"]
        return model.get_image_features(pixel_values=pixels.to(model.device))

    def answer(rows: pd.DataFrame, params: dict[str, Any]) -> dict[str, list[Any]]:
        towers = {"text": text, "image": image}
        return {
            f"{name}_embeds": [
                vector
                for batch in _batches(rows, name)
                for vector in normalize(towers[name](batch).pooler_output, dim=-1).tolist()
            ]
            for name in [name for name in towers if name in rows.columns] or ["text"]
        }

    return answer


def _batches(rows: pd.DataFrame, column: str) -> list[list[Any]]:
    """The column's values, ``_BATCH`` at a time; ValueError where there is no such column."""
    if column not in rows.columns:
        found = ", ".join(map(repr, rows.columns)) or "none"
        raise ValueError(f"the input needs a column {column!r}; its columns are {found}")
    values = rows[column].tolist()
    return [values[first : first + _BATCH] for first in range(0, len(values), _BATCH)]


def _decode(value: bytes | str) -> Image.Image:
    """A picture from bytes, or base64 text, of a PNG or JPEG file."""
    from PIL import Image

    data = base64.b64decode(value, validate=True) if isinstance(value, str) else value
    return Image.open(io.BytesIO(data), formats=("PNG", "JPEG")).convert("RGB")


def _encode(image: Image.Image) -> str:
    """A picture as base64 text of a PNG file."""
    data = io.BytesIO()
    image.save(data, format="PNG")
    return base64.b64encode(data.getvalue()).decode()
