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
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from components.contracts import (
    ArrayCache,
    CachesInputs,
    Elasticity,
    Family,
    Gang,
    ModelVersion,
    Resources,
    Rows,
    TrackedRun,
)
from components.data.lake import digest_of
from components.data.scratch import Scratch
from components.data.storage import named_failures
from components.execution.usage import Meter, Usage
from components.recipes.recipe import Trained
from components.tracking.outage import TrackerAway

from .costs import track_costs
from .progress import Progress, silence_libraries
from .rows import SplitRows, load_rows, with_text
from .spec import open_workspace, spec_of
from .workspace import Made, Outcome, UnfitParent, Workspace

if TYPE_CHECKING:
    import torch

    from components.training.checkpoint import Checkpoints
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
    "second_judge": ModelStage(with_truth=True, needs_truth=True),
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
        fitted = fit_stage(ws, asset, fingerprint, inputs, kept_as)
        fitted.checkpoints.clear()
        return fitted.made

    return track_costs(ws, ws.materialize(asset, inputs, settings, make, kept_as.shard))


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model, and what it drew on the way where a :class:`SamplingPlan` asked for it (by step, by kind).

    Its checkpoints stay until the caller, who has kept everything else, clears them: a run that is stopped before finds
    the training finished.
    """

    made: Made
    drawn: Mapping[int, Mapping[str, Any]]
    checkpoints: Checkpoints


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
    """Train what the stage of a model asset says, keep the folder and register its version as ``candidate``.

    A model that was kept is not trained again where it could not be registered, because the tracking server was away,
    or where what its caller does with it was stopped.
    """
    stage, section, kept_as = STAGES[asset], section_of(ws, asset), kept_as or KeptAs(asset)
    training = section.training
    parents = [registry for name in stage.parents if (registry := ws.parent(name, kept_as.parents.get(name)).registry)]
    checkpoints = _checkpoints(ws, asset, kept_as, fingerprint)
    result = _finished(ws, kept_as, checkpoints)
    run = _run_of(ws, kept_as, section, result)
    try:
        if result is None:
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
                elasticity=Elasticity(training.gang_sizes, training.max_lost_workers),
            )
        if result["num_unlogged"]:
            for step, scalars in result["losses"]:
                run.log_metrics(scalars, step=step)
        if not result.get("registered"):
            version = register(ws, kept_as, result["version"], run, inputs, parents)
            if not stage.is_gated:
                ws.tracker.set_alias(version, "champion")
            result = {**result, "registered": str(version)}
            checkpoints.write_note(_RESULT, json.dumps(result).encode())
        ws.tracker.finish(run)
    except BaseException:
        with suppress(TrackerAway):
            ws.tracker.finish(run, failed=True)
        raise
    made = Made(
        data_version=result["version"],
        path=_model_path(ws, kept_as, result["version"]),
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
        registry=result["registered"],
        workers=[Usage(**one) for one in result["usage"]],
    )
    return Fitted(made, Sketchbook(sampling, checkpoints).drawn(), checkpoints)


def _model_path(ws: Workspace, kept_as: KeptAs, version: str) -> str:
    return f"{ws.lake.place(kept_as.asset, 'model', kept_as.shard)}/{version}"


_RESULT = "result.json"  # beside the checkpoints, from the end of a training on


def _checkpoints(ws: Workspace, asset: str, kept_as: KeptAs, fingerprint: str) -> Checkpoints:
    from components.training.checkpoint import Checkpoints

    folder = f"checkpoints/{kept_as.asset}-{fingerprint}"
    return Checkpoints(ws.lake, folder, section_of(ws, asset).training.num_checkpoints)


def _finished(ws: Workspace, kept_as: KeptAs, checkpoints: Checkpoints) -> Mapping[str, Any] | None:
    """What an earlier training left whose model lies in the lake, though its asset was never finished."""
    note = None if ws.is_forced else checkpoints.read_note(_RESULT)
    result = json.loads(note) if note else None
    if result is None or not ws.lake.exists(_model_path(ws, kept_as, result["version"])):
        return None
    does = "was registered" if result.get("registered") else "is registered now"
    log.info("%s is trained already and %s (%s)", kept_as.label, does, result["version"])
    return result


def _run_of(ws: Workspace, kept_as: KeptAs, section: Trained, result: Mapping[str, Any] | None) -> TrackedRun:
    """The tracker's run of an earlier training's ``result``, where it still is; else a new one."""
    if result is not None:
        with suppress(LookupError):
            return ws.tracker.resume(result["run_id"])
    return ws.tracker.start(
        ws.registry_name(kept_as.asset, kept_as.shard),
        section.model_dump(mode="json"),
        {**ws.run_tags, "asset": kept_as.label, "recipe": ws.recipe.name},
    )


def register(
    ws: Workspace, kept_as: KeptAs, version: str, run: TrackedRun | None, inputs: Mapping[str, str], parents: list[str]
) -> ModelVersion:
    """Register the model folder's version and make it ``candidate``."""
    tags = {**ws.run_tags, "data_version": version, **{f"input.{name}": value[:200] for name, value in inputs.items()}}
    uri = ws.lake.uri(_model_path(ws, kept_as, version))
    name = ws.registry_name(kept_as.asset, kept_as.shard)
    registered = ws.tracker.register(name, uri, run=run, tags=tags, parents=parents)
    ws.tracker.set_alias(registered, "candidate")
    return registered


def fit_model(gang: Gang, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Run on a training worker: build the family from the lake, train it, and (rank 0) keep its folder in the lake."""
    meter = Meter()
    ws, asset, kept_as = open_workspace(config["workspace"]), config["asset"], config["kept_as"]
    checkpoints = _checkpoints(ws, asset, kept_as, config["fingerprint"])
    trainer = new_trainer(ws, asset, gang, checkpoints, kept_as.parents)
    run = ws.tracker.resume(config["run_id"]) if gang.rank == 0 else None
    costs = _Costs(meter, trainer, checkpoints)
    followed = _follow(trainer, kept_as.label, run, Sketchbook(config["sampling"], checkpoints), costs)
    with trainer.averaged_weights() as family:
        usage = costs.read()
        if run is None:
            return {}
        meter.restart()
        kept = _keep(ws, asset, kept_as, family, run, followed.history)
    last = followed.last
    result = {
        **kept,
        "run_id": run.run_id,
        "usage": [asdict(one) for one in (*usage, meter.read())],
        "early_weights": followed.early,
        "num_rows": trainer.family.num_rows,
        "rows_per_second": round(last.rows_per_second, 1) if last else 0.0,
        "flops_utilisation": round(last.utilisation, 3) if last else 0.0,
        "num_unlogged": 1,  # until the tracker has everything, which may take a while
    }
    checkpoints.write_note(_RESULT, json.dumps(result).encode())
    result["num_unlogged"] = run.flush()
    checkpoints.write_note(_RESULT, json.dumps(result).encode())
    return result


def new_trainer(
    ws: Workspace,
    asset: str,
    gang: Gang | None = None,
    checkpoints: Checkpoints | None = None,
    parent_shards: Mapping[str, str] | None = None,
) -> Trainer:
    """The training of a model asset before its first step: family, rows and parents from the lake."""
    import torch

    from components.execution.device import device_for
    from components.training.loop import Trainer

    silence_libraries()
    section = section_of(ws, asset)
    torch.set_num_threads(section.training.num_threads)
    rows = family_rows(ws, asset)
    shards = parent_shards or {}
    parents = {name: ws.model_folder(name, shards.get(name)) for name in STAGES[asset].parents}

    def build() -> Family:
        torch.manual_seed(section.training.seed)  # initial weights come from the process's generator
        return section.model.build(rows.train, rows.evaluation, parents)

    family = build()
    if isinstance(family, CachesInputs):
        family.cache_inputs(_cache_of(ws, asset, shards))
    device = device_for(section.training.num_gpus_per_worker)
    return Trainer(family, section.training, gang=gang, device=device, checkpoints=checkpoints, build=build)


def _cache_of(ws: Workspace, asset: str, shards: Mapping[str, str]) -> ArrayCache:
    """Arrays of a family in the scratch folder, under a name made of all that it is built from."""
    stage, split = STAGES[asset], ws.dataset.evaluation_fraction
    versions = [ws.parent(name, shards.get(name)).data_version for name in (stage.reads, *stage.parents)]
    name = digest_of([section_of(ws, asset).model.model_dump(mode="json"), versions, split])
    return partial(_cached_array, Scratch(ws.lake, ws.scratch), f"{asset}/{name}")


def _cached_array(
    scratch: Scratch, prefix: str, name: str, shape: tuple[int, ...], dtype: np.dtype, rows: Iterable[np.ndarray]
) -> np.ndarray:
    return scratch.array(f"{prefix}-{name}.npy", shape, dtype, rows)


def weights_digest(modules: Mapping[str, torch.nn.Module]) -> str:
    """Digest of all weights (16 hexadecimal digits): equal where two trainings stand at the same place.

    All workers of a sharded training must ask for it together.
    """
    from components.training.sharding import whole

    total = hashlib.sha256()
    for name, module in sorted(modules.items()):
        for key, value in sorted(whole(module.state_dict()).items()):
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
    """Draws what a :class:`SamplingPlan` asks for.

    Drawings are notes beside the checkpoints, where a resumed training finds them again.
    """

    def __init__(self, plan: SamplingPlan | None, checkpoints: Checkpoints) -> None:
        self.plan = plan
        self.checkpoints = checkpoints

    def is_due(self, step: int) -> bool:
        """Whether the plan asks for drawings after this step."""
        return self.plan is not None and step in self.plan.steps

    def draw(self, family: Any, step: int) -> None:
        """Draw the plan's prompts with a text-to-image family."""
        from components.families.latent_diffusion.sample import generate_latents

        assert self.plan is not None
        for kind, prompts in self.plan.prompts.items():
            latents = generate_latents(
                family.pipeline,
                prompts,
                [self.plan.seed + number for number in range(len(prompts))],
                num_inference_steps=self.plan.num_inference_steps,
                guidance_scale=self.plan.guidance_scale,
            )
            buffer = io.BytesIO()
            np.save(buffer, latents.astype(np.float16))
            self.checkpoints.write_note(f"drawn-{step}-{kind}.npy", buffer.getvalue())

    def drawn(self) -> dict[int, dict[str, np.ndarray]]:
        """By step and kind of prompt: latents float16 (N, C, h, w)."""
        if self.plan is None:
            return {}
        return {step: {kind: self._read(step, kind) for kind in self.plan.prompts} for step in self.plan.steps}

    def _read(self, step: int, kind: str) -> np.ndarray:
        data = self.checkpoints.read_note(f"drawn-{step}-{kind}.npy")
        assert data is not None
        return np.load(io.BytesIO(data), allow_pickle=False)


@dataclass(frozen=True, slots=True)
class _Followed:
    """What is known of a training at its end; ``early`` is where the weights stood after a few steps."""

    history: list[tuple[int, Mapping[str, float]]]
    last: TrainStep | None
    early: Mapping[str, Any]


_EARLY = "early_weights.json"


class _Costs:
    """What a training has taken: all workers of the gang, and the attempts before this one up to their checkpoints.

    Notes beside the checkpoints keep it, as a lost worker or a stopped run takes everything else along.
    """

    def __init__(self, meter: Meter, trainer: Trainer, checkpoints: Checkpoints) -> None:
        self.meter, self.trainer, self.checkpoints = meter, trainer, checkpoints
        note = checkpoints.read_note(_SPENT)
        self.earlier = [Usage(**json.loads(note))] if note else []

    def read(self) -> list[Usage]:
        """Earlier attempts and this one; all workers of the gang must ask for it together."""
        from components.training.loop import summed

        return [*self.earlier, summed(self.meter.read(), self.trainer.gang, self.trainer.device)]

    def note(self) -> None:
        """Keep what is spent by now; all workers together."""
        spent = sum(self.read(), Usage())
        if self.trainer.gang.rank == 0:
            self.checkpoints.write_note(_SPENT, json.dumps(asdict(spent)).encode())


_SPENT = "spent.json"


def _follow(trainer: Trainer, label: str, run: TrackedRun | None, sketchbook: Sketchbook, costs: _Costs) -> _Followed:
    """Walk the loop; rank 0, which has the run, logs losses, progress and (at intervals) sample pictures."""
    history: list[tuple[int, Mapping[str, float]]] = []
    progress = Progress(log, label, trainer.config.num_steps, "steps")
    step, notes, every = None, sketchbook.checkpoints, trainer.config.preview_every
    for step in trainer.run():
        if step.step == min(VERIFIED_STEPS, step.num_steps):
            digest = weights_digest(trainer.family.modules())
            if run is not None:
                notes.write_note(_EARLY, json.dumps({"step": step.step, "digest": digest}).encode())
        if run is not None:
            if step.scalars:
                history.append((step.step, step.scalars))
                _log_step(run, step)
            progress.update(step.step, _loss_note(history))
        if trainer.is_checkpoint(step.step):
            costs.note()
        is_shown = bool(every) and step.step % every == 0 and step.step < step.num_steps
        if is_shown or sketchbook.is_due(step.step):
            with trainer.averaged_weights() as family:
                if run is not None and sketchbook.is_due(step.step):
                    sketchbook.draw(family, step.step)
                if run is not None and is_shown and (picture := family.preview().image) is not None:
                    run.log_image(picture, f"samples/{step.step:06d}.png")
    early = json.loads(notes.read_note(_EARLY) or b"{}")  # a resumed training wrote it before it was stopped
    return _Followed(history, step, early)


def _log_step(run: TrackedRun, step: TrainStep) -> None:
    run.log_metrics(
        {
            **step.scalars,
            "learning_rate": step.learning_rate,
            "rows_per_second": step.rows_per_second,
            "flops_utilisation": step.utilisation,
        },
        step=step.step,
    )


def _loss_note(history: list[tuple[int, Mapping[str, float]]]) -> str:
    losses = {name: value for name, value in history[-1][1].items() if name.endswith("/loss")} if history else {}
    return ", ".join(f"{name} {value:.4f}" for name, value in losses.items())


def _keep(
    ws: Workspace,
    asset: str,
    kept_as: KeptAs,
    family: Family,
    run: TrackedRun,
    history: list[tuple[int, Mapping[str, float]]],
) -> dict[str, Any]:
    place = ws.lake.place(kept_as.asset, "model", kept_as.shard)
    preview = family.preview()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / asset
        folder.mkdir()
        with named_failures(str(folder), "written", OSError):
            family.save(folder)
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
