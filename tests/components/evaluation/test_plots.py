import numpy as np
import pytest

from components.evaluation.figures import CurvePoint
from components.evaluation.intervals import Figure
from components.evaluation.plots import curves, interval_bars, loss_curves, sample_sheet


def ink(picture) -> float:
    return float((np.asarray(picture.convert("L")) < 200).mean())


def test_every_scalar_gets_a_panel() -> None:
    one = loss_curves([(1, {"a/loss": 3.0}), (20, {"a/loss": 1.0})])
    four = loss_curves([(step, {f"a/{name}": 1.0 / step for name in ("loss", "b", "c", "d")}) for step in (1, 2, 3)])
    assert four.width > one.width
    assert four.height > one.height
    assert ink(one) > 0.005


def test_the_same_history_gives_the_same_picture() -> None:
    history = [(step, {"loss": 10.0**-step, "grad_norm": 1.0}) for step in range(1, 6)]
    assert loss_curves(history).tobytes() == loss_curves(history).tobytes()


def test_bars_show_every_figure() -> None:
    figures = {
        f"model {number}": Figure(number / 10, (number / 10 - 0.02, number / 10 + 0.02), 100) for number in range(5)
    }
    few = interval_bars({"raw": Figure(0.1, None, 3)}, "objects")
    assert interval_bars(figures, "objects").height > few.height
    assert ink(few) > 0.01


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="no scalars"):
        loss_curves([(1, {})])
    with pytest.raises(ValueError, match="objects: no figures"):
        interval_bars({}, "objects")


def test_curves_have_a_panel_per_figure_and_kind_of_prompt() -> None:
    def point(model: str, prompts: str, step: int, **figures: float) -> CurvePoint:
        values = {name: Figure(value, (value - 0.1, value + 0.1), 10) for name, value in figures.items()}
        return CurvePoint(model=model, prompts=prompts, step=step, **values)

    raw = [point(model, "raw", step, clip_score=10.0) for model in ("raw", "dsc-95") for step in (10, 20)]
    described = [point("dsc-95", "descriptive", step, clip_score=9.0, object_accuracy=0.5) for step in (10, 20)]
    one, three = curves(raw), curves([*raw, *described])
    assert three.width > one.width
    assert three.height > one.height
    assert ink(three) > 0.003
    with pytest.raises(ValueError, match="no point"):
        curves([])


def test_samples_have_a_row_for_each_model_and_a_column_for_each_prompt() -> None:
    red = np.zeros((3, 8, 8, 3), dtype=np.uint8) + np.array([255, 0, 0], dtype=np.uint8)
    prompts = ["one", "a $two$ that _is_ long enough to be broken into several lines", "three"]
    one, two = sample_sheet({"raw": red}, prompts), sample_sheet({"raw": red, "dsc-95, vae": red}, prompts)
    assert two.height > one.height

    def reds(picture) -> float:
        return (np.asarray(picture) == (255, 0, 0)).all(-1).sum()

    assert reds(two) == pytest.approx(2 * reds(one), rel=0.2)
    with pytest.raises(ValueError, match="argument 2 is longer"):
        sample_sheet({"raw": red}, prompts[:2])
