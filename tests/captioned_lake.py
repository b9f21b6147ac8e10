"""A lake whose captions two pairs of champions have written, made without any training: what automation looks at."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.captioning.recaption import KINDS
from components.pipeline.captions import caption_inputs, caption_keys, caption_settings
from components.pipeline.champions import ASSET as CHAMPIONS
from components.pipeline.ingest import build_image_set, ingest, shard_names
from components.pipeline.reuse import KEYS
from components.pipeline.workspace import Made, Workspace
from components.schemas import RECAPTIONED
from tests.finished_lake import keep_model
from tests.workspaces import scenes_workspace

VOCABULARY = "0123456789abcdef.vocabulary.txt"
NUM_SHARDS, NUM_ROWS = 3, 8
OVERRIDES = {
    "data.max_shards": str(NUM_SHARDS),
    "data.max_rows_per_shard": str(NUM_ROWS),
    "recaption.num_golden_pictures": "0",
}


def open_scenes(folder: Path) -> Workspace:
    """Three small shards of scenes, none of them read yet."""
    return scenes_workspace(folder, OVERRIDES)


def environment_of(folder: Path) -> dict[str, str]:
    """The environment in which a process opens the same deployment."""
    return {
        "ATELIER_HOME": str(folder),
        "ATELIER_DATASET": "scenes",
        "ATELIER_RECIPE": "smoke",
        "ATELIER_OVERRIDES": json.dumps(OVERRIDES),
        "MLFLOW_TRACKING_URI": f"local:{folder / 'tracker'}",
        "DAGSTER_HOME": str(folder / "dagster"),
    }


def read_shards(ws: Workspace, *shards: str) -> None:
    """Make some shards of raw_pairs (all where none is named)."""
    failures = [result.failure for result in ingest(ws, shards or shard_names(ws)) if result.failure]
    assert not failures, failures


def train_captioners(ws: Workspace, name: str) -> None:
    """Candidates of both kinds, as trainings would have left them."""
    for kind in KINDS:
        keep_model(ws, f"{kind}_captioner", {}, f"{kind} {name}")


def promote_captioners(ws: Workspace) -> str:
    """Make the candidates champions as their gate would; the data version of the champions."""
    named: dict[str, Any] = {"mean_picture": [0.0], "vocabulary": f"{CHAMPIONS}/{VOCABULARY}"}
    ws.lake.write_bytes(named["vocabulary"], b"words")
    for kind in KINDS:
        record = ws.parent(f"{kind}_captioner")
        ws.tracker.set_alias(ws.registered(record), "champion")
        named[kind] = {
            "registry": record.registry,
            "data_version": record.data_version,
            "path": record.path,
            "is_trained": False,
        }
    path, digest = ws.write_manifest(CHAMPIONS, named)
    version = ",".join(f"{kind}/{named[kind]['registry'].rsplit('/', 1)[1]}" for kind in KINDS)
    inputs = {f"{kind}_captioner": named[kind]["data_version"] for kind in KINDS}
    ws.keep(CHAMPIONS, digest, inputs, Made(version, path), seconds=0.0)
    return version


def write_captions(ws: Workspace, rows_of: Workspace | None = None) -> None:
    """Stand in for the champions: captions of every row of ``rows_of`` under the keys by which they are found again."""
    champions, clip = ws.read_manifest(CHAMPIONS)[1], ws.parent("clip")
    keys = caption_keys(ws, champions, clip.data_version)
    registry = {kind: champions[kind]["registry"] for kind in KINDS}
    for shard, part in (rows_of or ws).lake.records("raw_pairs").items():
        rows = (rows_of or ws).lake.read_table(part.path, ["key", "sha256", "caption"]).to_pylist()
        table = pa.Table.from_pylist([{**row, **_captions(row, registry)} for row in rows], RECAPTIONED.schema)
        path, digest = ws.lake.write_table(f"recaptioned/{shard}", table, RECAPTIONED)
        inputs = caption_inputs(part, champions, clip)
        metadata = {
            "rejected": 0,
            "raw_rows": len(rows),
            "complaints": {},
            KEYS: {kind: key.as_json() for kind, key in keys.items()},
            **{f"{kind}_captioner": name for kind, name in registry.items()},
        }
        made = Made(digest, path, num_rows=len(rows), metadata=metadata)
        fingerprint = ws.fingerprint("recaptioned", inputs, caption_settings(ws))
        ws.keep("recaptioned", fingerprint, inputs, made, seconds=0.0, shard=shard)


def _captions(row: Mapping[str, str], registry: Mapping[str, str]) -> dict[str, Any]:
    columns: dict[str, Any] = {"rejected": None}
    for kind, name in registry.items():
        columns |= {kind: f"{row['key']} by {name}", f"{kind}_captioner": name}
        columns |= {f"{kind}_score": 20.0, f"{kind}_shuffled": 10.0}
    return columns


def captioned_lake(folder: Path) -> Workspace:
    """Every shard read and captioned by the champions ``ssc/1,dsc/1``, then by ``ssc/2,dsc/2``, which are in use."""
    ws = open_scenes(folder)
    read_shards(ws)
    build_image_set(ws)
    keep_model(ws, "clip", {}, "clip")
    for name in ("first", "second"):
        train_captioners(ws, name)
        promote_captioners(ws)
        write_captions(ws)
    return ws
