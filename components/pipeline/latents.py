"""``latents`` and ``text_encoder``: what the text-to-image model reads besides captions.

What belongs here: encoding every picture once with the frozen VAE, and taking the encoder out of the prompt upsampler.
What does not: the networks (families).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from components import schemas
from components.data.lake import Record

from .shards import ShardResult, ShardStage, make_shards, row_group_items
from .train import KeptAs, register
from .workspace import Made, Outcome, Workspace


def encode(ws: Workspace, shards: Sequence[str]) -> Iterator[ShardResult]:
    """Cache the VAE's latents of each shard."""
    yield from make_shards(ws, encode_stage(ws), shards)


def encode_stage(ws: Workspace) -> ShardStage:
    """How ``latents`` are made from a row group of raw_pairs."""
    from components.families.vae.sample import SHAPE_METADATA, LatentWorker

    vae = ws.parent("vae")
    data = ws.recipe.data

    def assemble(part: Record, tables: list[pa.Table]) -> Made:
        table = pa.concat_tables([piece.replace_schema_metadata(None) for piece in tables])
        path, digest = ws.lake.write_table(f"latents/{part.shard}", table, schemas.LATENTS)
        shape = [int(side) for side in tables[0].schema.metadata[SHAPE_METADATA].split(b",")]
        values = table["latents"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return Made(
            digest,
            path,
            num_rows=table.num_rows,
            metadata={"shape": shape, "vae": vae.registry, "not_finite": int(np.sum(~np.isfinite(values)))},
        )

    return ShardStage(
        asset="latents",
        inputs=lambda part: {"raw_pairs": part.data_version, "vae": vae.data_version},
        settings=data.model_dump(mode="json", include={"resolution", "fit"}),
        items=lambda part: row_group_items(ws, part),
        factory=LatentWorker(str(ws.model_folder("vae")), data.resolution, data.fit),
        workers=ws.recipe.latents,
        assemble=assemble,
    )


def extract_text_encoder(ws: Workspace) -> Outcome:
    """The encoder half of the prompt upsampler as a stock T5EncoderModel folder."""
    parent = ws.parent("prompt_upsampler")
    inputs = {"prompt_upsampler": parent.data_version}

    def make(_: str) -> Made:
        from components.families.prompt_upsampler.sample import extract_text_encoder as extract

        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "text_encoder"
            extract(ws.model_folder("prompt_upsampler"), folder)
            version = ws.lake.add_folder(ws.lake.place("text_encoder", "model"), folder)
        parents = [parent.registry] if parent.registry else []
        registered = register(ws, KeptAs("text_encoder"), version, None, inputs, parents)
        ws.tracker.set_alias(registered, "champion")
        path = f"{ws.lake.place('text_encoder', 'model')}/{version}"
        return Made(version, path, metadata={"taken_from": parent.registry}, registry=str(registered))

    return ws.materialize("text_encoder", inputs, None, make)
