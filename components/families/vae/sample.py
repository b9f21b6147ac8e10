"""What a trained VAE does: pictures to latents and back, one array at a time or one stored shard after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from components.data.pixels import Fit, decode_pixels
from components.data.storage import open_file
from components.execution.device import best_device
from components.schemas import LATENTS

from .model import arranged, latents_of, load_autoencoder, pixel_values_of

SHAPE_METADATA = b"latents_shape"  # of the table's schema: "channels,height,width"


def load_vae(folder: str | Path, device: torch.device | str = "cpu") -> AutoencoderKL:
    """The VAE of a model folder, ready to encode and decode on ``device``."""
    vae = arranged(load_autoencoder(folder), torch.channels_last)
    torch.nn.Module.to(vae, device)
    vae.eval().requires_grad_(False)
    return vae


def encode(vae: AutoencoderKL, pixels: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
    """Latents as the U-Net sees them: float16 (N, C, h, w) of uint8 (N, H, W, 3)."""
    pieces = []
    with torch.no_grad():
        for start in range(0, len(pixels), batch_size):
            pixel_values = to_pixel_values(pixels[start : start + batch_size]).to(vae.device)
            pieces.append(latents_of(vae, pixel_values).half().contiguous().cpu().numpy())
    return np.concatenate(pieces)


def decode(vae: AutoencoderKL, latents: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
    """Pictures uint8 (N, H, W, 3) of latents (N, C, h, w) as the U-Net sees them."""
    pieces = []
    with torch.no_grad():
        for start in range(0, len(latents), batch_size):
            batch = torch.from_numpy(np.array(latents[start : start + batch_size], np.float32)).to(vae.device)
            pieces.append(to_pixels(pixel_values_of(vae, batch)))
    return np.concatenate(pieces)


def to_pixel_values(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) as float32 (B, 3, H, W) in [-1, 1]; channels-last in memory."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(pixel_values: torch.Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] as uint8 (B, H, W, 3), clipped and rounded."""
    scaled = (pixel_values.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


@dataclass(frozen=True, slots=True)
class LatentWorker:
    """Makes the rows of ``LATENTS`` from stored pictures; a factory for :meth:`components.contracts.Executor.map`.

    ``folder`` is the VAE's local model folder; ``resolution`` and ``fit`` are those of the pixels that train the U-Net.
    """

    folder: str
    resolution: int
    fit: Fit = "pad"
    batch_size: int = 64

    def __call__(self) -> _LatentTables:
        """Load the VAE, once per worker."""
        return _LatentTables(load_vae(self.folder, best_device()), self)


class _LatentTables:
    """Turns one item, ``{"uri": Parquet of raw_pairs, "row_group": int}``, into a table in the schema ``LATENTS``.

    The schema's metadata holds ``latents_shape``, for example ``4,16,16``.
    """

    def __init__(self, vae: AutoencoderKL, worker: LatentWorker) -> None:
        self.vae = vae
        self.worker = worker

    def __call__(self, item: Mapping[str, Any]) -> pa.Table:
        with open_file(item["uri"]) as stream:
            table = pq.ParquetFile(stream).read_row_group(item["row_group"], columns=["key", "sha256", "image"])
        worker = self.worker
        pieces = []
        for start in range(0, table.num_rows, worker.batch_size):
            images = table["image"].slice(start, worker.batch_size)
            pixels = np.stack([decode_pixels(image.as_py(), worker.resolution, worker.fit) for image in images])
            pieces.append(encode(self.vae, pixels, batch_size=worker.batch_size))
        return latents_table(table["key"], table["sha256"], np.concatenate(pieces))


def latents_table(keys: pa.ChunkedArray, digests: pa.ChunkedArray, latents: np.ndarray) -> pa.Table:
    """Rows of ``LATENTS``; ``latents`` float16 (N, C, h, w), whose shape goes into the schema's metadata."""
    flat = latents.reshape(len(latents), -1)
    offsets = pa.array(np.arange(len(latents) + 1, dtype=np.int32) * flat.shape[1])
    values = pa.ListArray.from_arrays(offsets, pa.array(flat.ravel()))
    shape = ",".join(str(side) for side in latents.shape[1:])
    schema = LATENTS.schema.with_metadata({SHAPE_METADATA: shape.encode()})
    return pa.table([keys, digests, values], schema=schema)
