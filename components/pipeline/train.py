"""How every model asset is trained: one function for all families, and the loop's caller on the worker.

What belongs here: which parents and rows a model asset reads, logging, previews, saving, registering. What does not:
losses (families), the loop (training) and where the worker runs (execution).
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from components.contracts import Gang, ModelVersion, Resources, Rows, TrackedRun
from components.recipes.recipe import Trained

from .progress import Progress, silence_libraries
from .rows import SplitRows, load_rows, with_text
from .spec import open_workspace, spec_of
from .workspace import Made, Outcome, UnfitParent, Workspace

if TYPE_CHECKING:
    import torch

    from components.training.checkpoint import CheckpointFolder
    from components.training.loop import Trainer, TrainStep

log = logging.getLogger(__name__)
VERIFIED_STEPS = 10  # after which a training notes its weights, so that ``verify`` can take the same steps again


@dataclass(frozen=True, slots=True)
class ModelStage:
    """What a model asset reads."""

    parents: tuple[str, ...] = ()
    reads: str = "image_set"
    with_latents: bool = False
    with_truth: bool = False
    needs_truth: bool = False  # not made for a data set without ground truth
    only_text: str | None = None
    is_gated: bool = False  # a later asset decides whether the candidate becomes champion


STAGES = {
    "evaluation_clip": ModelStage(with_truth=True),
    "attribute_judge": ModelStage(with_truth=True, needs_truth=True),
    "clip": ModelStage(),
    "base_captioner": ModelStage(parents=("clip",)),
    "ssc_captioner": ModelStage(parents=("base_captioner",), only_text="ssc_example", is_gated=True),
    "dsc_captioner": ModelStage(parents=("base_captioner",), only_text="dsc_example", is_gated=True),
    "vae": ModelStage(),
    "prompt_upsampler": ModelStage(reads="training_set"),
    "latent_diffusion": ModelStage(
        parents=("vae", "text_encoder"), reads="training_set", with_latents=True, is_gated=True
    ),
    "diffusion_decoder": ModelStage(parents=("vae",), with_latents=True),
    "consistency_decoder": ModelStage(parents=("vae", "diffusion_decoder"), with_latents=True, is_gated=True),
}


def section_of(ws: Workspace, asset: str) -> Trained:
    """The recipe's section for a model asset."""
    return getattr(ws.recipe, asset)


@dataclass(frozen=True, slots=True)
class KeptAs:
    """The asset (and its partition) under which a trained model is kept.

    ``parents`` names the partitions of those parents whose own version it does not learn from, but a study's.
    """

    asset: str
    shard: str | None = None
    parents: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What progress lines call it."""
        return self.asset if self.shard is None else f"{self.asset}[{self.shard}]"


def train_model(ws: Workspace, asset: str, kept_as: KeptAs | None = None) -> Outcome:
    """Train (or reuse) a model asset, keep its folder in the lake and register its version as ``candidate``."""
    stage, section, kept_as = STAGES[asset], section_of(ws, asset), kept_as or KeptAs(asset)
    inputs = {name: ws.parent(name, kept_as.parents.get(name)).data_version for name in (stage.reads, *stage.parents)}
    if stage.with_latents:
        inputs["latents"] = ",".join(record.data_version for record in ws.lake.records("latents").values())
    settings = {
        "section": section.model_dump(mode="json"),
        "data": ws.recipe.data.model_dump(mode="json", include={"resolution", "fit"}),
        "evaluation_fraction": ws.dataset.evaluation_fraction,
    }

    def make(fingerprint: str) -> Made:
        if stage.needs_truth and not ws.dataset.has_ground_truth:
            return Made("none", "", metadata={"not_made": f"data set {ws.dataset.name!r} has no ground truth"})
        return fit_stage(ws, asset, fingerprint, inputs, kept_as).made

    return ws.materialize(asset, inputs, settings, make, kept_as.shard)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model, and what it drew on the way where a :class:`SamplingPlan` asked for it (by step, by kind)."""

    made: Made
    drawn: Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """Prompts by kind that a text-to-image model draws after certain steps, as latents, for curves over training."""

    steps: tuple[int, ...]
    prompts: Mapping[str, Sequence[str]]
    seed: int
    num_inference_steps: int
    guidance_scale: float


def fit_stage(
    ws: Workspace,
    asset: str,
    fingerprint: str,
    inputs: Mapping[str, str],
    kept_as: KeptAs | None = None,
    sampling: SamplingPlan | None = None,
) -> Fitted:
    """Train what the stage of a model asset says, keep the folder and register its version as ``candidate``."""
    stage, section, kept_as = STAGES[asset], section_of(ws, asset), kept_as or KeptAs(asset)
    training = section.training
    parents = [registry for name in stage.parents if (registry := ws.parent(name, kept_as.parents.get(name)).registry)]
    run = ws.tracker.start(
        ws.registry_name(kept_as.asset, kept_as.shard),
        section.model_dump(mode="json"),
        {**ws.run_tags, "asset": kept_as.label, "recipe": ws.recipe.name},
    )
    try:
        run.log_input(stage.reads, ws.lake.uri(ws.parent(stage.reads).path), inputs[stage.reads], "training")
        result = ws.executor.fit(
            fit_model,
            {
                "workspace": spec_of(ws),
                "asset": asset,
                "kept_as": kept_as,
                "sampling": sampling,
                "fingerprint": fingerprint,
                "run_id": run.run_id,
            },
            num_workers=training.num_workers,
            resources=Resources(training.num_threads, training.num_gpus_per_worker),
        )
    except BaseException:
        ws.tracker.finish(run, failed=True)
        raise
    version = register(ws, kept_as, result["version"], run, inputs, parents)
    ws.tracker.finish(run)
    if not stage.is_gated:
        ws.tracker.set_alias(version, "champion")
    made = Made(
        data_version=result["version"],
        path=f"{ws.lake.place(kept_as.asset, 'model', kept_as.shard)}/{result['version']}",
        metadata={
            **result["metrics"],
            "steps": training.num_steps,
            "early_weights": result["early_weights"],
            "rows_per_second": result["rows_per_second"],
            "flops_utilisation": result["flops_utilisation"],
            "training_rows": result["num_rows"],
            "losses": result["losses"],
            "samples": result["samples"],
            "mlflow_run": run.run_id,
        },
        pictures={name: _open_picture(ws, path) for name, path in result["pictures"].items()},
        registry=str(version),
    )
    return Fitted(made, result["drawn"])


def register(
    ws: Workspace, kept_as: KeptAs, version: str, run: TrackedRun | None, inputs: Mapping[str, str], parents: list[str]
) -> ModelVersion:
    """Register the model folder's version and make it ``candidate``."""
    tags = {**ws.run_tags, "data_version": version, **{f"input.{name}": value[:200] for name, value in inputs.items()}}
    uri = ws.lake.uri(f"{ws.lake.place(kept_as.asset, 'model', kept_as.shard)}/{version}")
    name = ws.registry_name(kept_as.asset, kept_as.shard)
    registered = ws.tracker.register(name, uri, run=run, tags=tags, parents=parents)
    ws.tracker.set_alias(registered, "candidate")
    return registered


def fit_model(gang: Gang, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Run on a training worker: build the family from the lake, train it, and (rank 0) keep its folder in the lake."""
    from components.training.checkpoint import CheckpointFolder

    ws, asset, kept_as = open_workspace(config["workspace"]), config["asset"], config["kept_as"]
    checkpoints = CheckpointFolder(ws.scratch / "checkpoints" / f"{kept_as.asset}-{config['fingerprint']}")
    trainer = new_trainer(ws, asset, gang, checkpoints, kept_as.parents)
    run = ws.tracker.resume(config["run_id"])
    sketchbook = Sketchbook(config["sampling"], checkpoints.path.parent)
    history, last, early = _follow(trainer, kept_as.label, run if gang.rank == 0 else None, sketchbook)
    if gang.rank != 0:
        return {}
    result = _keep(ws, asset, kept_as, trainer, run, history)
    drawn = sketchbook.drawn()
    checkpoints.clear()
    return {
        **result,
        "early_weights": early,
        "drawn": drawn,
        "num_rows": trainer.family.num_rows,
        "rows_per_second": round(last.rows_per_second, 1) if last else 0.0,
        "flops_utilisation": round(last.utilisation, 3) if last else 0.0,
    }


def new_trainer(
    ws: Workspace,
    asset: str,
    gang: Gang | None = None,
    checkpoints: CheckpointFolder | None = None,
    parent_shards: Mapping[str, str] | None = None,
) -> Trainer:
    """The training of a model asset before its first step: family, rows and parents from the lake."""
    import torch

    from components.training.loop import Trainer

    silence_libraries()
    section = section_of(ws, asset)
    torch.set_num_threads(section.training.num_threads)
    rows = family_rows(ws, asset)
    shards = parent_shards or {}
    parents = {name: ws.model_folder(name, shards.get(name)) for name in STAGES[asset].parents}
    torch.manual_seed(section.training.seed)  # initial weights: the libraries draw them from the process's generator
    family = section.model.build(rows.train, rows.evaluation, parents)
    device = "cuda" if torch.cuda.is_available() and section.training.num_gpus_per_worker else "cpu"
    return Trainer(family, section.training, gang=gang, device=device, checkpoints=checkpoints)


def weights_digest(modules: Mapping[str, torch.nn.Module]) -> str:
    """Digest of all weights (16 hexadecimal digits): equal where two trainings stand at the same place."""
    total = hashlib.sha256()
    for name, module in sorted(modules.items()):
        for key, value in sorted(module.state_dict().items()):
            total.update(f"{name}.{key}".encode() + _bytes_of(value))
    return total.hexdigest()[:16]


def _bytes_of(tensor: torch.Tensor) -> bytes:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def family_rows(ws: Workspace, asset: str) -> SplitRows:
    """The rows that a model asset learns from, as its stage says."""
    stage = STAGES[asset]
    section = section_of(ws, asset)
    only_text = stage.only_text if section.training.num_steps else None  # a hub captioner needs none
    needs_truth = getattr(section.model, "synthetic_kind", "").startswith("truth_")
    rows = load_rows(
        ws,
        with_recaptions=stage.reads == "training_set",
        with_latents=stage.with_latents,
        with_truth=stage.with_truth or needs_truth,
    )
    train: Rows = with_text(rows.train, only_text) if only_text else rows.train
    if not len(train):
        what = f"text {only_text!r}" if only_text else "training split"
        raise UnfitParent(
            f"{asset} has no rows with {what}: give the data set an examples section (or a hub captioner in the "
            "recipe), and check splits.evaluation in its dataset.yaml"
        )
    return SplitRows(train, rows.evaluation)


class Sketchbook:
    """Draws what a :class:`SamplingPlan` asks for, into files, which a resumed training finds again."""

    def __init__(self, plan: SamplingPlan | None, folder: Path) -> None:
        self.plan = plan
        self.folder = folder

    def draw(self, trainer: Trainer, step: int) -> None:
        """Draw the prompts where this step is one of the plan's."""
        if self.plan is None or step not in self.plan.steps:
            return
        from components.families.latent_diffusion.sample import generate_latents

        family: Any = trainer.family
        self.folder.mkdir(parents=True, exist_ok=True)
        with trainer.averaged_weights():
            for kind, prompts in self.plan.prompts.items():
                latents = generate_latents(
                    family.pipeline,
                    prompts,
                    [self.plan.seed + number for number in range(len(prompts))],
                    num_inference_steps=self.plan.num_inference_steps,
                    guidance_scale=self.plan.guidance_scale,
                )
                np.save(self.folder / f"drawn-{step}-{kind}.npy", latents.astype(np.float16))

    def drawn(self) -> dict[int, dict[str, np.ndarray]]:
        """By step and kind of prompt: latents float16 (N, C, h, w)."""
        if self.plan is None:
            return {}
        return {
            step: {kind: np.load(self.folder / f"drawn-{step}-{kind}.npy") for kind in self.plan.prompts}
            for step in self.plan.steps
        }


def _follow(
    trainer: Trainer, label: str, run: TrackedRun | None, sketchbook: Sketchbook
) -> tuple[list[tuple[int, Mapping[str, float]]], TrainStep | None, dict[str, Any]]:
    """Walk the loop; rank 0 logs losses, progress and (at intervals) sample pictures.

    The last of the three is where the weights stood after a few steps, for ``verify``.
    """
    history: list[tuple[int, Mapping[str, float]]] = []
    progress = Progress(log, label, trainer.config.num_steps, "steps")
    step = None
    note = sketchbook.folder / "early_weights.json"
    early: dict[str, Any] = json.loads(note.read_text()) if note.exists() else {}  # a resumed training has it already
    for step in trainer.run():
        if step.step == min(VERIFIED_STEPS, step.num_steps):
            early = {"step": step.step, "digest": weights_digest(trainer.family.modules())}
            if trainer.gang.rank == 0:
                note.parent.mkdir(parents=True, exist_ok=True)
                note.write_text(json.dumps(early))
        if run is None:
            continue
        if step.scalars:
            history.append((step.step, step.scalars))
            run.log_metrics(
                {
                    **step.scalars,
                    "learning_rate": step.learning_rate,
                    "rows_per_second": step.rows_per_second,
                    "flops_utilisation": step.utilisation,
                },
                step=step.step,
            )
        progress.update(step.step, _loss_note(history))
        sketchbook.draw(trainer, step.step)
        every = trainer.config.preview_every
        if every and step.step % every == 0 and step.step < step.num_steps:
            with trainer.averaged_weights():
                picture = trainer.family.preview().image
            if picture is not None:
                run.log_image(picture, f"samples/{step.step:06d}.png")
    return history, step, early


def _loss_note(history: list[tuple[int, Mapping[str, float]]]) -> str:
    losses = {name: value for name, value in history[-1][1].items() if name.endswith("/loss")} if history else {}
    return ", ".join(f"{name} {value:.4f}" for name, value in losses.items())


def _keep(
    ws: Workspace,
    asset: str,
    kept_as: KeptAs,
    trainer: Trainer,
    run: TrackedRun,
    history: list[tuple[int, Mapping[str, float]]],
) -> dict[str, Any]:
    place = ws.lake.place(kept_as.asset, "model", kept_as.shard)
    with tempfile.TemporaryDirectory() as temporary, trainer.averaged_weights():
        preview = trainer.family.preview()
        folder = Path(temporary) / asset
        folder.mkdir()
        trainer.family.save(folder)
        version = ws.lake.add_folder(place, folder)
    pictures = {}
    if preview.image is not None:
        run.log_image(preview.image, "samples/final.png")
        pictures["samples"] = preview.image
    if len(history) > 1:
        from components.evaluation.plots import loss_curves

        pictures["losses"] = loss_curves(history)
        run.log_image(pictures["losses"], "losses.png")
    run.log_metrics({f"held_out/{name}": value for name, value in preview.metrics.items()})
    run.log_text(json.dumps(section_of(ws, asset).model_dump(mode="json"), indent=1), "recipe_section.json")
    paths = {}
    for name, picture in pictures.items():
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        paths[name] = f"{place}/{version}.{name}.png"
        ws.lake.write_bytes(paths[name], buffer.getvalue())
    return {
        "version": version,
        "metrics": {name: round(float(value), 5) for name, value in preview.metrics.items()},
        "samples": [dict(row) for row in preview.rows],
        "losses": [[step, {name: round(value, 6) for name, value in scalars.items()}] for step, scalars in history],
        "pictures": paths,
    }


def _open_picture(ws: Workspace, path: str) -> Image.Image:
    return Image.open(io.BytesIO(ws.lake.read_bytes(path)))
