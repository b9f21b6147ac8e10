import re

import pytest

from components.evaluation import blend_study
from components.evaluation.blend_study import gap_closed, rows_of, sentences, to_markdown
from components.evaluation.figures import GenerationFigures, Report, SuiteFigures
from components.evaluation.intervals import Figure
from components.evaluation.verdict import verdict


def near(value: float, half: float = 0.02) -> Figure:
    return Figure(value, (value - half, value + half), 250)


def arm(model: str, objects: float, prompts: str = "descriptive", **changes) -> GenerationFigures:
    values = {"decoder": "vae", "upsampled": False, "num_prompts": 250, "object_accuracy": near(objects)}
    return GenerationFigures(model=model, prompts=prompts, **{**values, **changes})


def report_on(*arms: GenerationFigures) -> Report:
    return Report(dataset="scenes", recipe="tiny", atelier_version="0", seed=0, generation=arms)


def test_the_gap_is_closed_by_the_share_of_the_way() -> None:
    closed = gap_closed(near(0.1), near(0.8), near(0.9))
    assert closed is not None
    assert closed.value == pytest.approx(0.875)
    assert closed.ci95 is not None
    # by hand: (0.8 - 0.1) / 0.8 with errors 0.02 of ours, 0.125 * 0.02 of the lowest and 0.875 * 0.02 of the highest
    half = 0.02 * (1 + 0.125**2 + 0.875**2) ** 0.5 / 0.8
    assert closed.ci95 == pytest.approx((0.875 - half, 0.875 + half))


def test_a_gap_that_is_not_clear_is_not_divided_by() -> None:
    assert gap_closed(near(0.5), near(0.51), near(0.53)) is None
    assert gap_closed(near(0.9), near(0.5), near(0.1)) is None
    assert gap_closed(Figure(0.1, None, 9), near(0.5), near(0.9)) is None


def test_arms_stand_in_order_and_the_mean_over_seeds_for_its_blend() -> None:
    rows = rows_of(
        [
            arm("dsc-95", 0.9),
            arm("dsc-95", 0.1, decoder="consistency"),
            arm("oracle", 0.95),
            arm("dsc-95", 0.85, num_seeds=3, is_study=True),
            arm("raw-long", 0.4),
            arm("raw", 0.2),
            arm("dsc-95", 0.7, prompts="short", upsampled=True),
        ]
    )
    assert list(rows) == ["descriptive", "short, upsampled"]
    assert list(rows["descriptive"]) == ["raw", "dsc-95", "oracle", "raw-long"]
    assert rows["descriptive"]["dsc-95"].num_seeds == 3


def test_the_sentences_say_order_gap_and_what_longer_training_brings() -> None:
    said = list(
        sentences(report_on(*(arm(*one) for one in (("raw", 0.1), ("ssc-95", 0.12), ("dsc-95", 0.8), ("oracle", 0.9)))))
    )
    assert len(said) == 2
    assert "raw 10.0 %, ssc-95 12.0 %, dsc-95 80.0 %, oracle 90.0 %" in said[0]
    assert "ssc-95 is not clearly different raw" not in said[0]
    assert "ssc-95 beside raw: not clearly different; dsc-95 beside ssc-95: clearly above" in said[0]
    assert "dsc-95 closes 88 %" in said[1]
    longer = list(sentences(report_on(arm("dsc-95", 0.8), arm("raw", 0.1), arm("dsc-95-long", 0.95))))
    assert longer == [
        "On descriptive prompts dsc-95, trained longer, draws 95.0 % of the objects rightly (clearly above the usual "
        "training's 80.0 %)."
    ]
    assert not list(sentences(report_on(arm("dsc-95", 0.8), arm("raw", 0.1))))


def test_the_verdict_speaks_of_the_means_that_the_table_shows() -> None:
    report = report_on(
        arm("dsc-95", 0.94), arm("raw", 0.1, num_seeds=3), arm("dsc-95", 0.9, num_seeds=3, is_study=True)
    )
    report = report_on(*(one.model_copy(update={"scene_accuracy": one.object_accuracy}) for one in report.generation))
    said = " ".join(verdict(report))
    assert "dsc-95 (3 seeds) draws 90.0 %" in said
    assert "raw captions (3 seeds) draws 10.0 %" in said
    assert "94.0 %" not in said


def test_metrics_have_names_that_mlflow_takes() -> None:
    suite = SuiteFigures(suite="parti", category="Food & Beverage", num_prompts=3, clip_score=near(30.0))
    report = report_on(arm("dsc-95", 0.94), arm("dsc-95", 0.9, num_seeds=3, is_study=True))
    names = report.model_copy(update={"suites": (suite,)}).metrics()
    assert len(names) == 3
    assert all(re.fullmatch(r"[/\w.\- :]*", name) for name in names)  # MLflow's own rule


def test_the_table_has_a_row_for_each_arm_and_kind_of_prompt() -> None:
    arms = [arm("raw", 0.1, clip_score=near(30.0, 1.0)), arm("raw", 0.2, prompts="short"), arm("dsc-95", 0.8)]
    lines = to_markdown(report_on(*arms)).splitlines()
    assert len(lines) == 2 + 3
    assert lines[2].startswith("| descriptive | raw | 1 | 10.0 % (8.0-12.0) | - | - | 30.0 (29.0-31.0) | - | - |")
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


def test_curves_are_of_arms_that_the_study_has() -> None:
    from components.pipeline.study import BLENDS

    assert set(blend_study.NAMES) == set(BLENDS)
    named = {name.removesuffix(blend_study.LONG) for models in blend_study.CURVES.values() for name in models}
    assert named == set(BLENDS)
