"""Comparisons with Adam and RMSProp, and the figures that result."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import problems
from problems.matrices import MatrixFactorization
from training.evaluation import corpus, networks
from training.evaluation.held_out import final_log_loss
from training.evaluation.rollouts import SEGMENT, Runs
from training.rules.baselines import Baselines

FAMILY = MatrixFactorization(3, 2)
NOTHING = tf.zeros((0,))


def test_baselines_are_those_of_keras():
    runs = Runs(Baselines((True, False)), FAMILY, 1, 2)
    losses = runs(NOTHING, [2e-2, 1e-2], 100, 5)
    assert losses.shape == (100, 2, 1)
    for k, rival in enumerate(
        (keras.optimizers.Adam(2e-2), keras.optimizers.RMSprop(1e-2))
    ):
        wanted = problems.minimize(FAMILY, rival, 100, seed=5)[1:]
        # Rounding differs, and 100 steps amplify it.
        np.testing.assert_allclose(losses[:, k, 0], wanted, 1e-3)
        assert wanted[-1] < 0.5 * wanted[0]


@pytest.fixture(scope="module")
def together():
    kinds = (True, True, False, False)
    rates = [[1e-2, 2e-2], [3e-3, 5e-3]]
    return Runs(Baselines(kinds), FAMILY, 2, 2)(NOTHING, rates, 100, 3)


@pytest.mark.parametrize("k, kind", [(0, True), (1, False)])
def test_a_setting_is_run_as_if_alone(together, k, kind):
    rates = [[1e-2, 2e-2], [3e-3, 5e-3]][k]
    alone = Runs(Baselines((kind, kind)), FAMILY, 2)(NOTHING, rates, 100, 3)
    np.testing.assert_allclose(together[:, k], alone[:, 0], 1e-4)
    assert np.all(together[:, k] != together[:, 1 - k])
    assert np.all(alone[:, 0, 0] != alone[:, 0, 1])


def test_steps_in_whole_segments():
    runs = Runs(Baselines((True,)), FAMILY, 1)
    with pytest.raises(ValueError, match="multiple of 50. Received: steps=70"):
        runs(NOTHING, [1e-3], SEGMENT + 20, 0)


def test_final_log_loss_by_hand():
    losses = np.ones((60, 3))
    losses[-2:, 0] = np.e**5, np.e**3
    losses[-1, 1] = np.nan
    losses[-51, 2] = np.inf
    found = final_log_loss(losses, 0.0)
    wanted = [8 / 50, np.log(1e30) / 50, 0.0]
    np.testing.assert_allclose(found, wanted, 1e-6, 1e-12)
    huge = final_log_loss(np.full((1, 1), np.inf), 0.0)
    np.testing.assert_allclose(huge, np.log(1e30), 1e-6)
    none = final_log_loss(np.zeros((4, 1)), 1e-10, last=2)
    np.testing.assert_allclose(none, np.log(1e-10), 1e-6)


def test_wins_by_hand():
    """A win is by more than a tenth; each initial rate counts for itself."""
    results = {
        "a": corpus.Result((-1.0, -1.2, 0.0, 3.0, -9.0), -1.0, -8.0, -1.2, 0),
        "b": corpus.Result((-2.0, -2.05, 1.0, -3.0, -9.0), -2.0, 0.0, -2.8, 0),
    }
    assert corpus.wins(results, "adam") == [0, 1, 0, 1, 2]
    assert corpus.wins(results, "rmsprop") == [1, 1, 0, 1, 2]
    assert corpus.wins(results, "best_adam") == [0, 0, 0, 1, 2]


def test_ratio_by_hand():
    assert networks.ratio([2.0, 8.0], [1.0, 1.0]) == pytest.approx(4.0)
    assert networks.ratio([1e-6, 0.03], [0.0, 0.01]) == pytest.approx(3**0.5)
    assert networks.ratio([np.nan], [1.0]) == np.inf
