"""Which evaluated models become champion: each passes or fails its own gate."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from components.contracts import ModelVersion, Rows
from components.evaluation.fid import fid
from components.evaluation.figures import GenerationFigures
from components.evaluation.measurement import Reference
from components.pipeline.report import REAL, _Evaluation, promote
from components.pipeline.workspace import Workspace
from tests.evaluated import GATED, parents_of, remember, report_of
from tests.workspaces import scenes_workspace


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return scenes_workspace(tmp_path, {})


def champions(ws: Workspace) -> dict[str, str | None]:
    found = {asset: ws.tracker.by_alias(ws.registry_name(asset), "champion") for asset in GATED}
    return {asset: version and version.version for asset, version in found.items()}


def test_both_become_champion_where_both_pass(ws: Workspace) -> None:
    promotion = promote(ws, parents_of(ws), report_of(70, 0.3))
    assert promotion["champions"] == list(GATED)
    assert promotion["decoder_shortcomings"] == []
    assert champions(ws) == {"latent_diffusion": "1", "consistency_decoder": "1"}


def test_a_failing_student_stays_a_candidate_and_keeps_nobody_else_back(ws: Workspace) -> None:
    remember(ws, promote(ws, parents_of(ws), report_of(70, 0.3)))
    promotion = promote(ws, parents_of(ws), report_of(71, 0.45))
    assert promotion["champions"] == ["latent_diffusion"]
    assert promotion["decoder_shortcomings"] == ["FID 0.45 is not below 0.4 of the undistilled teacher in two steps"]
    assert champions(ws) == {"latent_diffusion": "2", "consistency_decoder": "1"}
    candidate = ws.tracker.by_alias(ws.registry_name("consistency_decoder"), "candidate")
    assert candidate is not None
    assert candidate.version == "2"


def test_a_worse_text_to_image_model_keeps_no_student_back(ws: Workspace) -> None:
    remember(ws, promote(ws, parents_of(ws), report_of(70, 0.3)))
    promotion = promote(ws, parents_of(ws), report_of(60, 0.3))
    assert promotion["champions"] == ["consistency_decoder"]
    assert champions(ws) == {"latent_diffusion": "1", "consistency_decoder": "2"}
    remember(ws, promotion)  # the champion to beat is still the first
    assert promote(ws, parents_of(ws), report_of(60, 0.3))["champions"] == ["consistency_decoder"]
    assert promote(ws, parents_of(ws), report_of(69, 0.3))["champions"] == list(GATED)


def test_a_champion_that_was_measured_otherwise_is_measured_again(ws: Workspace) -> None:
    remember(ws, promote(ws, parents_of(ws), report_of(70, 0.3)))
    other = ws.with_recipe(ws.recipe.with_overrides({"evaluation.num_prompts": "7"}))
    asked: list[str] = []

    def measure(version: ModelVersion) -> list[float]:
        asked.append(version.version)
        return [30.0, 29.0, 31.0]

    promotion = promote(other, parents_of(ws), report_of(25, 0.3), measure)
    assert promotion["champions"] == ["consistency_decoder"]
    assert promotion["stays_a_candidate_because"]["latent_diffusion"] == [
        "its CLIP score 25.0 lies clearly below the champion's 30.0"
    ]
    remember(ws, promotion)
    assert "latent_diffusion" in promote(other, parents_of(ws), report_of(33, 0.3), measure)["champions"]
    assert asked == ["1"]


def test_nothing_stands_against_a_candidate_where_the_champion_cannot_be_measured(ws: Workspace) -> None:
    remember(ws, promote(ws, parents_of(ws), report_of(70, 0.3)))
    other = ws.with_recipe(ws.recipe.with_overrides({"evaluation.seed": "7"}))
    assert promote(other, parents_of(ws), report_of(25, 0.3))["champions"] == list(GATED)


def test_real_pictures_stand_beside_models_in_equal_numbers() -> None:
    rng = np.random.default_rng(0)
    real, other, near = (rng.normal(size=(40, 4)) for _ in range(3))
    features = {"real": real, "other": other}
    asked = SimpleNamespace(
        judges=SimpleNamespace(reference=Reference(lambda name: features[name], real)),
        other_rows=Rows(keys=["k"] * 40, pixels=cast("np.ndarray", "other"), texts={}),
    )
    drawn = GenerationFigures(
        model="dsc-95", prompts="short", upsampled=True, decoder="vae", num_prompts=40, fid=fid(near + 3, real)
    )
    fewer = drawn.model_copy(update={"num_prompts": 12})
    report = report_of(70, 0.3).model_copy(update={"generation": (drawn, fewer)})
    found = _Evaluation.distances(cast("_Evaluation", asked), report)
    assert list(found) == ["dsc-95, short upsampled, vae", REAL]
    assert found[REAL][0] == pytest.approx(fid(other, real).value, abs=1e-4)
    assert found[REAL][0] < found["dsc-95, short upsampled, vae"][1]
