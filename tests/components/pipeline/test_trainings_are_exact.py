"""Every family's training: stopped and resumed, or cut over two workers, it is the same training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.contracts import Executor, Gang
from components.data.lake import Lake
from components.pipeline.graph import ORDER, make
from components.pipeline.train import STAGES, KeptAs, fit_stage, new_trainer, weights_digest
from components.pipeline.verify import verify
from components.pipeline.workspace import Made, Workspace
from components.training.checkpoint import Checkpoints
from tests.workspaces import scenes_workspace

NUM_STEPS = 6
CAPTIONERS = ("ssc_captioner", "dsc_captioner")  # with so few steps they would write loops alone
SMALL = {
    **{f"{asset}.training.num_steps": str(NUM_STEPS) for asset in STAGES if asset not in CAPTIONERS},
    **{f"{asset}.training.ema_decay": "0.9" for asset in ("latent_diffusion", "diffusion_decoder")},
    **{f"{asset}.training.precision": "fp32" for asset in STAGES},
    **{f"{asset}.training.log_every": "1" for asset in STAGES},
    "consistency_decoder.model.data_fraction": "0.5",  # so that in some steps one of two workers distils nothing
    "data.max_shards": "1",
    "data.max_rows_per_shard": "128",
}
INPUTS = {"image_set": "digest", "training_set": "digest"}
MADE = ORDER[: ORDER.index("caption_blend_study")]


@pytest.fixture(scope="module")
def ws(tmp_path_factory) -> Workspace:
    """The recipe smoke with six steps for most, made up to the judges."""
    folder = tmp_path_factory.mktemp("exact")
    workspace = scenes_workspace(folder, SMALL)
    for asset in MADE:
        make(workspace, asset)
    return workspace


def with_training(ws: Workspace, asset: str, **changes: object) -> Workspace:
    """The workspace with other settings of one training."""
    overrides = {f"{asset}.training.{name}": str(value) for name, value in changes.items()}
    return ws.with_recipe(ws.recipe.with_overrides(overrides))


@pytest.mark.parametrize("asset", STAGES)
def test_a_stopped_training_ends_with_the_bytes_of_an_undisturbed_one(ws, asset, tmp_path):
    ws = with_training(ws, asset, num_steps=NUM_STEPS)
    undisturbed = new_trainer(ws, asset)
    expected = {step.step: dict(step.scalars) for step in undisturbed.run()}
    ws = with_training(ws, asset, checkpoint_every=2)
    list(islice(new_trainer(ws, asset, checkpoints=Checkpoints(Lake(str(tmp_path)), asset)).run(), 5))
    resumed = new_trainer(ws, asset, checkpoints=Checkpoints(Lake(str(tmp_path)), asset))
    scalars = {step.step: dict(step.scalars) for step in resumed.run()}
    assert sorted(scalars) == [5, 6]
    assert scalars == {step: expected[step] for step in (5, 6)}
    assert weights_digest(resumed.family.modules()) == weights_digest(undisturbed.family.modules())
    with resumed.averaged_weights(), undisturbed.averaged_weights():
        assert weights_digest(resumed.family.modules()) == weights_digest(undisturbed.family.modules())


QUICK = ("clip", "none")
SLOW = [(asset, sharding) for asset in STAGES for sharding in ("none", "full") if (asset, sharding) != QUICK]


@pytest.mark.parametrize(
    ("asset", "sharding"), [QUICK, *(pytest.param(*pair, marks=pytest.mark.chaos) for pair in SLOW)]
)
def test_two_workers_see_what_one_sees(ws, asset, sharding, ray_executor):
    """Whole copies (DDP) or cut weights (FSDP); what is saved loads as one worker's does."""
    losses, saved = {}, {}
    for num_workers in (1, 2):
        few = {"num_steps": NUM_STEPS, "checkpoint_every": 4}  # rounding grows with every step
        changed = with_training(ws, asset, num_workers=num_workers, sharding=sharding, **few)
        changed = changed if num_workers == 1 else replace(changed, executor=ray_executor)
        kept_as = KeptAs(asset, f"{sharding}-{num_workers}")
        made = fit_stage(changed, asset, f"{sharding}-{num_workers}", INPUTS, kept_as).made
        name = f"{new_trainer(ws, asset).movers[0].objective.name}/loss"
        losses[num_workers] = [scalars[name] for _, scalars in made.metadata["losses"]]
        saved[num_workers] = weights_below(Path(ws.lake.root) / made.path)
    assert losses[1] == pytest.approx(losses[2], rel=2e-4)
    assert losses[1][0] != losses[1][-1]
    assert saved[1].keys() == saved[2].keys()
    for key, value in saved[1].items():
        assert torch.allclose(value, saved[2][key], atol=2e-3), key


def weights_below(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model folder's safetensors."""
    files = sorted(folder.rglob("*.safetensors"))
    parts = {file.relative_to(folder).as_posix(): load_file(file) for file in files}
    return {f"{part}:{key}": value.float() for part, tensors in parts.items() for key, value in tensors.items()}


@dataclass(frozen=True)
class LosesAWorker:
    """Another executor's gangs, of which the first one's rank 0 is killed when it has kept its first checkpoint."""

    executor: Executor
    mark: Path  # a file that is there once the worker is killed

    def fit(
        self, function: Callable[[Gang, Mapping[str, Any]], Mapping[str, Any]], config: Mapping[str, Any], **how: Any
    ) -> Mapping[str, Any]:
        mark = str(self.mark)

        def killed_once(gang: Gang, config: Mapping[str, Any]) -> Mapping[str, Any]:
            import os
            import signal

            from components.training.checkpoint import Checkpoints

            save = Checkpoints.save

            def save_and_die(checkpoints: Checkpoints, step: int, state: dict[str, Any]) -> None:
                save(checkpoints, step, state)
                if not os.path.exists(mark):  # noqa: PTH110  (it runs in a worker)
                    os.close(os.open(mark, os.O_CREAT))
                    os.kill(os.getpid(), signal.SIGKILL)

            Checkpoints.save = save_and_die
            return function(gang, config)

        return self.executor.fit(killed_once, config, **how)


@pytest.mark.chaos
def test_a_training_that_loses_a_worker_ends_with_the_bytes_of_an_undisturbed_one(ws, ray_executor, caplog, tmp_path):
    """The gang starts again and goes on from the checkpoint."""
    changed = with_training(ws, "vae", num_workers=2, num_steps=12, checkpoint_every=5, sharding="full")

    def trained(way: str, executor: Executor | LosesAWorker) -> Made:
        return fit_stage(replace(changed, executor=executor), "vae", way, INPUTS, KeptAs("vae", way)).made

    undisturbed = trained("undisturbed", ray_executor)
    killed = trained("killed", LosesAWorker(ray_executor, tmp_path / "lost"))
    assert "going on from the last checkpoint (2 more such losses allowed)" in caplog.text
    assert min(step for step, _ in undisturbed.metadata["losses"]) == 1
    assert min(step for step, _ in killed.metadata["losses"]) == 6
    assert killed.data_version == undisturbed.data_version


def test_slices_of_all_assets_come_out_the_same(ws):
    compared = list(verify(ws, MADE))
    assert {one.asset.partition("[")[0] for one in compared} == set(MADE)
    assert [one for one in compared if not one.is_equal] == []


def test_a_slice_that_comes_out_otherwise_is_told(ws):
    changed = ws.with_recipe(ws.recipe.with_overrides({"clip.training.seed": "1"}))
    (clip,) = verify(changed, ("clip",))
    assert not clip.is_equal
    assert clip.slice == f"{NUM_STEPS} steps"
