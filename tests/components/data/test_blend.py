from collections import Counter

import numpy as np
import pytest

from components.data.blend import choose_texts
from components.training.randomness import SeededRandom

TEXTS = {
    "caption": ["raw 0", "raw 1", "raw 2", "raw 3"],
    "dsc": ["dsc 0", None, "dsc 2", "dsc 3"],
    "ssc": ["ssc 0", "ssc 1", "ssc 2", "ssc 3"],
}


def draw(rows, weights, dropout=0.0, step=0, seed=0):
    rows = np.array(rows)
    return choose_texts(TEXTS, rows, weights, dropout, SeededRandom(seed, step, rows))


def test_the_shares_of_many_steps_are_the_weights():
    drawn = Counter(draw([0], {"caption": 1, "dsc": 19}, step=step)[0] for step in range(2000))
    assert drawn["raw 0"] + drawn["dsc 0"] == 2000
    assert 0.03 < drawn["raw 0"] / 2000 < 0.07


def test_a_row_without_a_synthetic_text_gives_its_raw_caption():
    assert draw([1, 2], {"dsc": 1.0}) == ["raw 1", "dsc 2"]


def test_dropout_empties_texts():
    drawn = [draw([3], {"ssc": 1.0}, dropout=0.1, step=step)[0] for step in range(1000)]
    assert set(drawn) == {"", "ssc 3"}
    assert 60 < drawn.count("") < 140


def test_a_choice_depends_on_seed_step_and_row_alone():
    weights = {"caption": 0.5, "dsc": 0.3, "ssc": 0.2}
    together = draw([0, 1, 2, 3], weights, dropout=0.2, step=7)
    apart = [draw([row], weights, dropout=0.2, step=7)[0] for row in (0, 1, 2, 3)]
    assert together == apart
    assert any(draw([0, 1, 2, 3], weights, step=step) != draw([0, 1, 2, 3], weights, step=0) for step in range(1, 5))


@pytest.mark.parametrize(
    ("weights", "message"),
    [({"alt": 1.0}, "no texts of kind alt"), ({"dsc": 0.0}, "above 0"), ({"dsc": 1.0, "ssc": -1.0}, "none below")],
)
def test_weights_that_cannot_be_drawn_from_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        draw([0], weights)
