import numpy as np
import pytest

from components.evaluation.intervals import Figure
from components.evaluation.plots import interval_bars, loss_curves


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
