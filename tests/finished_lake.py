"""A lake as finished trainings leave it, made in a moment: real rows, captions of two captioners, small models."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from components.data.catalog import DATASETS, load_dataset
from components.data.lake import Record
from components.pipeline.captions import build_training_set
from components.pipeline.ingest import build_image_set, ingest, shard_names
from components.pipeline.train import KeptAs, register
from components.pipeline.workspace import Made, Workspace
from tests.workspaces import scenes_workspace
from tests.writers import caption_all

NUM_EXAMPLES = 6


@dataclass(frozen=True)
class Finished:
    """The workspace, and every record in the order in which it was made, by a name of its own."""

    ws: Workspace
    made: Mapping[str, Record]


def finished_lake(folder: Path, rows_per_shard: int = 24) -> Finished:
    """Two shards of scenes; a second descriptive captioner, whose captions a second text-to-image model read."""
    ws = scenes_workspace(folder, {"data.max_rows_per_shard": str(rows_per_shard)})
    card = yaml.safe_load((DATASETS / "scenes" / "dataset.yaml").read_text())
    card["examples"]["dsc"]["rows"] = NUM_EXAMPLES
    (folder / "datasets" / "scenes").mkdir(parents=True)
    (folder / "datasets" / "scenes" / "dataset.yaml").write_text(yaml.safe_dump(card))
    ws = replace(ws, dataset=load_dataset("scenes", folder / "datasets"))
    made = {f"raw_pairs[{r.shard}]": r.outcome.record for r in ingest(ws, shard_names(ws)) if r.outcome}
    images = made["image_set"] = build_image_set(ws).record

    def model(name: str, asset: str, *parents: str, steps: int = 5) -> None:
        inputs = {made[parent].asset: made[parent].data_version for parent in parents}
        made[name] = keep_model(ws, asset, inputs, name, steps)

    model("clip", "clip", "image_set")
    model("base_captioner", "base_captioner", "image_set", "clip")
    model("ssc_captioner", "ssc_captioner", "image_set", "base_captioner")
    model("dsc_captioner", "dsc_captioner", "image_set", "base_captioner")
    model("vae", "vae", "image_set")
    model("kept_vae", "vae", "image_set", steps=0)
    model("vae", "vae", "image_set")
    for turn in ("first", "second"):
        model(f"{turn}_dsc_captioner", "dsc_captioner", "image_set", "base_captioner")
        caption_all(ws, str(made["ssc_captioner"].registry), str(made[f"{turn}_dsc_captioner"].registry))
        made[f"{turn}_training_set"] = build_training_set(ws).record
        model(f"{turn}_upsampler", "prompt_upsampler", f"{turn}_training_set")
        model(f"{turn}_text_encoder", "text_encoder", f"{turn}_upsampler")
        model(f"{turn}_diffusion", "latent_diffusion", f"{turn}_training_set", "vae", f"{turn}_text_encoder")
    assert images.num_rows == 2 * rows_per_shard
    return Finished(ws, made)


def keep_model(ws: Workspace, asset: str, inputs: Mapping[str, str], content: str, steps: int = 5) -> Record:
    """A model folder with these words in it, registered and recorded as a training would."""
    folder = ws.scratch / "made" / asset / content
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "unet" / "weights.bin").write_text(content * 100)

    def make(_: str) -> Made:
        version = ws.lake.add_folder(f"models/{asset}", folder)
        registered = register(ws, KeptAs(asset), version, None, inputs, [])
        return Made(version, f"models/{asset}/{version}", metadata={"steps": steps}, registry=str(registered))

    return ws.materialize(asset, inputs, content, make).record
