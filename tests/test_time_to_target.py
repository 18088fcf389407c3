"""Times to a target and profiles, worked out by hand."""

import numpy as np
import pytest

from training.evaluation.curves import Curve
from training.evaluation.rivals import Rival
from training.figures.profiles import cell, entries
from training.figures.time_to_target import profile, ratios, reached, score

CURVE = Curve(
    np.array([0, 10, 20]), np.array([2.0, np.nan, 0.5]), np.array([0, 0.2, 0.3])
)


def test_reached():
    assert reached(CURVE, 0.5) == (20.0, 0.3)
    assert reached(CURVE, 2.0) == (0.0, 0.0)
    assert reached(CURVE, 0.4) == (np.inf, np.inf)


TIMES = {
    "a": [10.0, np.inf, 30.0, np.inf, 0.0],
    "b": [20.0, 5.0, np.inf, np.inf, 0.0],
}


def test_ratios():
    found = ratios(TIMES)
    np.testing.assert_array_equal(found["a"], [1, np.inf, 1, np.inf, 1])
    np.testing.assert_array_equal(found["b"], [2, 1, np.inf, np.inf, 1])


def test_profiles_and_scores():
    found = ratios(TIMES)
    np.testing.assert_allclose(profile(found["a"], [1, 4]), [0.6, 0.6])
    np.testing.assert_allclose(
        profile(found["b"], [1, 1.9, 2]), [0.4, 0.4, 0.6]
    )
    assert score(found["a"]) == pytest.approx(0.6)
    # A task at a factor of 2 counts for two thirds.
    assert score(found["b"]) == pytest.approx((2 + 2 / 3) / 5)
    # The score is the mean height of the curve.
    tau = np.linspace(1, 4, 3001)
    assert np.mean(profile(found["b"], tau)) == pytest.approx(
        score(found["b"]), abs=1e-3
    )
    assert score([5.0]) == 0.0


def test_cells():
    assert cell(np.array([30.0, 10.0, 20.0])) == "20 (10-30)"
    assert cell(np.array([10.0, 20.0, np.inf])) == "20 (10-)"
    assert cell(np.array([10.0, np.inf, np.inf])) == "- (10-)"
    assert cell(np.array([np.inf])) == "-"


def test_entries():
    known = {"X": Rival("X", 0.1, None)}
    found = entries(known, {("X", "t"): 0.3}, ["t"])
    assert [(name, rates) for name, _, rates in found] == [
        ("HierarchicalRNN", {"t": None}),
        ("X, best", {"t": 0.3}),
        ("X, default", {"t": 0.1}),
    ]
