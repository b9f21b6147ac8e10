"""Every family's training: stopped and resumed, or cut over two workers, it is the same training."""

from itertools import islice

import pytest

from components.pipeline.graph import ORDER, make
from components.pipeline.train import STAGES, KeptAs, fit_stage, new_trainer, weights_digest
from components.pipeline.verify import verify
from components.pipeline.workspace import Workspace
from components.training.checkpoint import CheckpointFolder
from tests.workspaces import scenes_workspace

NUM_STEPS = 6
CAPTIONERS = ("ssc_captioner", "dsc_captioner")  # with so few steps they would write loops alone
SMALL = {
    **{f"{asset}.training.num_steps": str(NUM_STEPS) for asset in STAGES if asset not in CAPTIONERS},
    **{f"{asset}.training.ema_decay": "0.9" for asset in ("latent_diffusion", "diffusion_decoder")},
    **{f"{asset}.training.precision": "fp32" for asset in STAGES},
    **{f"{asset}.training.log_every": "1" for asset in STAGES},
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
    list(islice(new_trainer(ws, asset, checkpoints=CheckpointFolder(tmp_path)).run(), 5))
    resumed = new_trainer(ws, asset, checkpoints=CheckpointFolder(tmp_path))
    scalars = {step.step: dict(step.scalars) for step in resumed.run()}
    assert sorted(scalars) == [5, 6]
    assert scalars == {step: expected[step] for step in (5, 6)}
    assert weights_digest(resumed.family.modules()) == weights_digest(undisturbed.family.modules())
    with resumed.averaged_weights(), undisturbed.averaged_weights():
        assert weights_digest(resumed.family.modules()) == weights_digest(undisturbed.family.modules())


@pytest.mark.parametrize("asset", ["clip", "vae", "latent_diffusion"])
def test_two_workers_see_what_one_sees(ws, asset, ray_executor):
    losses = {}
    for num_workers in (1, 2):
        changed = with_training(ws, asset, num_workers=num_workers)
        changed = changed if num_workers == 1 else _on(changed, ray_executor)
        made = fit_stage(changed, asset, f"workers-{num_workers}", INPUTS, KeptAs(asset, f"workers-{num_workers}")).made
        name = f"{new_trainer(ws, asset).movers[0].objective.name}/loss"
        losses[num_workers] = [scalars[name] for _, scalars in made.metadata["losses"]]
    assert losses[1] == pytest.approx(losses[2], rel=2e-4)
    assert losses[1][0] != losses[1][-1]


def _on(ws: Workspace, executor: object) -> Workspace:
    from dataclasses import replace

    return replace(ws, executor=executor)  # type: ignore[type-var]


def test_slices_of_all_assets_come_out_the_same(ws):
    compared = list(verify(ws, MADE))
    assert {one.asset.partition("[")[0] for one in compared} == set(MADE)
    assert [one for one in compared if not one.is_equal] == []


def test_a_slice_that_comes_out_otherwise_is_told(ws):
    changed = ws.with_recipe(ws.recipe.with_overrides({"clip.training.seed": "1"}))
    (clip,) = verify(changed, ("clip",))
    assert not clip.is_equal
    assert clip.slice == f"{NUM_STEPS} steps"
