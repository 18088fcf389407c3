"""The parts that the figures are made of."""

import csv
import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from problems.data import digits
from problems.matrices import MatrixFactorization
from problems.neural import MLP, ConvNet, OnPictures, pooled
from training.common import output
from training.common.results import Results
from training.engine.config import MetaConfig
from training.evaluation.rollouts import Runs
from training.figures import drawn, figure_2
from training.figures.settings import Settings, SettingsError
from training.rules.baselines import GradientDescent


def test_settings_are_checked():
    with pytest.raises(SettingsError, match="positive. Received: steps=-1"):
        Settings(steps=-1)
    with pytest.raises(SettingsError, match="at most pictures=8. Received"):
        Settings(batch=9, pictures=8)
    with pytest.raises(SettingsError, match="multiple of 50 here. .*steps=70"):
        Settings(steps=70).steps_or(100, 50)
    assert Settings().steps_or(100, 50) == 100
    chosen = Settings(only=("MLP", "b"))
    assert chosen.selected(["an MLP", "c", "b"]) == ["an MLP", "b"]
    with pytest.raises(SettingsError, match="one of c, d. Received: MLP, b"):
        chosen.selected(["c", "d"])


def test_output_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "a.csv"
    output.write_csv(path, ["x", "y"], [[1, 0.25], ["b, c", float("inf")]])
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["x", "y"], ["1", "0.25"], ["b, c", "inf"]
        ]  # fmt: skip

    def interrupted():
        yield [1, 2]
        raise KeyboardInterrupt

    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        output.write_csv(path, ["x", "y"], interrupted())
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.csv"]


def test_totals_have_the_law_of_section_4_4():
    config = MetaConfig(segment=50, mean_steps=200.0, mean_unrolls=5.0)
    steps = figure_2.totals(config, 2000, seed=1)
    # Rounding 1 + Exp(5) to whole unrolls keeps the mean to within 1 %.
    mean, sd = 6 * 250, np.std(steps) / np.sqrt(2000)
    assert abs(steps.mean() - mean) < 5 * sd + 0.02 * mean
    assert steps.min() >= 50 and np.all(steps % 50 == 0)
    np.testing.assert_array_equal(steps, figure_2.totals(config, 2000, seed=1))
    alone = dataclasses.replace(config, mean_unrolls=1e-3, mean_steps=1e-3)
    np.testing.assert_array_equal(figure_2.totals(alone, 3, seed=1), [50] * 3)


def test_gradient_descent_by_hand():
    rule = GradientDescent()
    theta = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    state = rule.initial_state((), (2,), theta)
    gradient = tf.constant([[1.0, -1.0], [10.0, 0.0]])
    state = rule.step((), (2,), state, gradient, tf.constant([0.5, 0.1]))
    np.testing.assert_allclose(rule.point(state), [[0.5, 2.5], [2.0, 4.0]])


def test_quantiles_are_those_of_the_runs():
    family = MatrixFactorization(3, 2)
    results = Results()
    rates = (1e-2, 1e-1)
    found = drawn.quantiles(family, "f", drawn.sgd(rates), 50, 5, results)
    assert found.shape == (3, 2, 5)
    losses = Runs(GradientDescent(), family, 5, 2)(
        tf.zeros((0,)), rates, 50, drawn.SEED
    )
    for k in range(2):
        at = np.sort(losses[[9, 19, 29, 39, 49], k], axis=-1)
        np.testing.assert_allclose(found[:, k], at.T[[1, 2, 3]], 1e-5)
    # A finished job is kept.
    again = drawn.quantiles(None, "f", drawn.sgd(rates), 50, 5, results)
    np.testing.assert_array_equal(found, again)


def test_pictures_are_pooled():
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_allclose(
        pooled(x, 2)[0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]]
    )
    with pytest.raises(ValueError, match="divide 4 and 4. Received: side=3"):
        pooled(x, 3)


@pytest.mark.parametrize("network", [
    MLP((64, 5, 10), "sigmoid", rows=20),
    ConvNet(classes=10, rows=20, side=8, activation="sigmoid"),
], ids=["MLP", "ConvNet"])  # fmt: skip
def test_networks_on_pictures(network):
    bank = digits()
    family = OnPictures(network, bank.x_train, bank.y_train, batch_size=8)
    problem = family.instances(3, 2)
    x = problem.data["x"].numpy().reshape(2, 20, 8, 8, 1)
    y = problem.data["y"].numpy()
    known = {
        a.tobytes(): b for a, b in zip(bank.x_train, bank.y_train, strict=True)
    }
    for picture, label in zip(x.reshape(-1, 8, 8, 1), y.ravel(), strict=True):
        assert known[picture.tobytes()] == label
    assert np.any(x[0] != x[1])
    batch = problem.batch(0)
    np.testing.assert_allclose(tf.reduce_sum(batch["weights"], -1), 1.0, 1e-5)
    assert np.all(np.sum(batch["weights"].numpy() > 0, -1) == 8)
    # It learns: ten steps of gradient descent on all of its pictures.
    params, first = problem.start, problem.full_loss(problem.start)
    for _ in range(10):
        with tf.GradientTape() as tape:
            tape.watch(params)
            loss = problem.full_loss(params)
        params = tuple(
            p - g for p, g in zip(params, tape.gradient(loss, params),
                                  strict=True)
        )  # fmt: skip
    assert np.all(problem.full_loss(params) < first)
    with pytest.raises(ValueError, match="fit the network's inputs"):
        OnPictures(network, bank.x_train[:, :4], bank.y_train)
