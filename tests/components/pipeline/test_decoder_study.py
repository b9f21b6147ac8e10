"""The study of the decoders: what is trained for a seed, what is reused, and which rows are measured."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from components.pipeline.decoder_study import STUDENT, TEACHER, held_out_rows, study_decoders, train_trio
from components.pipeline.graph import make
from components.pipeline.train import STAGES
from components.pipeline.workspace import UnfitParent, Workspace
from tests.workspaces import scenes_workspace

NUM_PICTURES = 5
SMALL = {
    **{f"{asset}.training.num_steps": "4" for asset in STAGES},
    "data.max_shards": "1",
    "data.max_rows_per_shard": "256",
    "evaluation.num_pictures": str(NUM_PICTURES),
}
PARENTS = ("raw_pairs", "image_set", "vae", "latents", "evaluation_clip", "attribute_judge")


@pytest.fixture(scope="module")
def ws(tmp_path_factory) -> Workspace:
    workspace = scenes_workspace(tmp_path_factory.mktemp("decoders"), SMALL)
    for asset in PARENTS:
        make(workspace, asset)
    return workspace


@pytest.fixture(scope="module")
def study(ws):
    return study_decoders(ws)


def test_every_seed_has_a_teacher_of_its_own(ws, study):
    assert [one.seed for one in study.seeds] == [0, 1]
    own, other = train_trio(ws, 0), train_trio(ws, 1)
    assert [record.shard for record in (*own, *other)] == [None, None, "control0", "seed1", "seed1", "control1"]
    assert [one.seconds for one in study.seeds] == [  # what is trained is not trained again
        {name: record.seconds for name, record in trio._asdict().items()} for trio in (own, other)
    ]
    assert own[0].data_version != other[0].data_version
    assert own[1].inputs[TEACHER] == own[0].data_version
    assert other[1].inputs[TEACHER] == other[0].data_version
    assert [one.steps for one in study.seeds] == [{"teacher": 4, "student": 4, "control": 8}] * 2


def test_seed_0_is_the_graphs_own_pair(ws, study):
    assert make(ws, TEACHER)[0].is_reused
    (outcome,) = make(ws, STUDENT)
    assert outcome.is_reused
    assert outcome.record == train_trio(ws, 0)[1]


def test_the_study_is_kept_with_means_over_seeds(ws, study):
    kept = json.loads(ws.lake.read_bytes("reports/decoder_study/reported.json"))
    assert set(kept["figures"]) == {"vae", "teacher", "teacher_2", "consistency", "control"}
    for name, figures in kept["figures"].items():
        values = [one["figures"][name]["fid"]["value"] for one in kept["seeds"]]
        assert figures["fid"]["value"] == pytest.approx(np.mean(values))
        assert figures["fid"]["num_samples"] == NUM_PICTURES  # the seeds share them
    # both seeds decode with one VAE, so that its figures have no spread of seeds
    assert len({one["figures"]["vae"]["psnr"]["value"] for one in kept["seeds"]}) == 1
    table = ws.lake.read_bytes("reports/decoder_study/reported.md").decode().splitlines()
    assert len({line.count("|") for line in table[:6]}) == 1
    assert sum(line.startswith("Seed ") for line in table) == 2


def test_a_contact_sheet_shows_every_decoder_beside_the_original(ws, study):
    with Image.open(io.BytesIO(ws.lake.read_bytes("reports/decoder_study/reported-seed1.png"))) as sheet:
        pixels = np.asarray(sheet)
    side = 4 * ws.recipe.data.resolution
    original = held_out_rows(ws, "reported").pixels[0]
    assert np.array_equal(pixels[:side:4, :side:4], original)
    assert pixels.shape[1] // side == 1 + len(study.figures())


def test_hyper_parameters_are_chosen_on_rows_that_no_report_uses(ws):
    reported, choosing = (held_out_rows(ws, rows_of) for rows_of in ("reported", "choosing"))
    assert len(reported) == len(choosing) == NUM_PICTURES
    assert not set(reported.keys) & set(choosing.keys)
    few = ws.recipe.evaluation.model_copy(update={"num_pictures": 500})
    greedy = dataclasses.replace(ws, recipe=ws.recipe.model_copy(update={"evaluation": few}))
    with pytest.raises(UnfitParent, match="too few are left to choose"):
        held_out_rows(greedy, "choosing")
