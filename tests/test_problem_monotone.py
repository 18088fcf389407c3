"""Transforms of the loss against the chain rule in float64."""

import numpy as np
import pytest
import tensorflow as tf

from problems import GradientNoise, Log1p, Power, Scaled
from problems.convex import LogisticRegression, Quadratic
from tests.problem_cases import assert_near, column, inside

COUNT = 5
INNER = LogisticRegression(4, 30)  # two tensors, minibatches

# Each with the new loss and its slope, written by hand in float64.
CURVES = {
    Power: lambda d, l: (l ** d["power"], d["power"] * l ** (d["power"] - 1)),
    Log1p: lambda d, l: (np.log(1 + l), 1 / (1 + l)),
    Scaled: lambda d, l: (d["factor"] * l, d["factor"] * np.ones_like(l)),
}


@pytest.mark.parametrize("transform", CURVES)
def test_curves_of_the_loss(transform):
    problem = transform(INNER).instances(1, COUNT)
    own = {k: np.float64(v) for k, v in problem.data.items() if k != "inner"}
    start, batch = problem.start, problem.batch(2)
    loss, gradients = inside(problem).loss_and_gradient(start, batch)
    wanted, slope = CURVES[transform](own, np.float64(loss))
    got, got_gradients = problem.loss_and_gradient(start, batch)
    assert_near(got, wanted)
    assert_near(problem.loss(start, batch), wanted)
    assert_near(got_gradients, [column(slope, g) * g for g in gradients])
    full = np.float64(inside(problem).full_loss(start))
    assert_near(problem.full_loss(start), CURVES[transform](own, full)[0])


def test_powers_and_factors_are_within_their_range():
    many = 400
    for transform, key, high in (
        (Power(INNER, 0.5, 2.0), "power", 2.0),
        (Scaled(INNER, 1e-3, 1e3), "factor", 1e3),
    ):
        log = np.log(transform.draw(3, many)[key]) / np.log(high)
        assert np.all(np.abs(log) <= 1 + 1e-6)
        # Uniform in [-1, 1]: mean 0, standard deviation 1 / sqrt(3).
        assert abs(log.mean()) < 5 / (3 * many) ** 0.5
        assert log.min() < -0.9 and log.max() > 0.9


def test_power_of_nothing_is_flat():
    problem = Power(Quadratic(3)).instances(0, COUNT)
    with tf.GradientTape() as tape:
        point = problem.argmin
        tape.watch(point)
        loss, gradients = problem.loss_and_gradient(point, ())
    for tensor in (loss, *gradients, *tape.gradient(gradients, point)):
        assert np.all(tensor == 0)


def test_minimum_of_a_curve():
    overlapping = LogisticRegression(4, 30, flipped=0.2)
    for transform in CURVES:
        assert transform(INNER).minimum == 0
        assert transform(overlapping).minimum is None


def test_noise_passes_through_a_power():
    problem = Power(GradientNoise(INNER)).instances(1, COUNT)
    start, batch = problem.start, problem.batch(2)
    noisy, clean = inside(problem), inside(inside(problem))
    loss, gradients = clean.loss_and_gradient(start, batch["inner"])
    power, loss = np.float64(problem.data["power"]), np.float64(loss)
    sd = noisy.data["sd"]
    got, got_gradients = problem.loss_and_gradient(start, batch)
    assert_near(got, loss**power)
    slope = power * loss ** (power - 1)
    for g, wanted, noise in zip(
        got_gradients, gradients, batch["noise"], strict=True
    ):
        wanted = np.float64(wanted) + column(sd, g) * noise
        assert_near(g, column(slope, g) * wanted)
