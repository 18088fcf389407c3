"""Changes of variables, noise and sparsity, against the original problem."""

import numpy as np
import pytest
import tensorflow as tf

from problems import (
    GradientNoise,
    Power,
    Reparametrized,
    Scaled,
    SparseGradient,
)
from problems.convex import LogisticRegression, Quadratic
from tests.problem_cases import assert_near, column, inside

COUNT = 5
INNER = LogisticRegression(4, 30)  # two tensors, minibatches


def test_change_of_variables():
    family = Reparametrized(INNER, parameter=2.0)
    problem = family.instances(1, COUNT)
    batch = problem.batch(2)
    scales = problem.data["scales"]
    assert_near(
        [t * s for t, s in zip(problem.start, scales, strict=True)],
        inside(problem).start,
        1e-6,
    )
    wanted = inside(problem).full_loss(inside(problem).start)
    assert_near(problem.full_loss(problem.start), wanted)
    point = tuple(t * s for t, s in zip(problem.start, scales, strict=True))
    loss, gradients = inside(problem).loss_and_gradient(point, batch)
    got, got_gradients = problem.loss_and_gradient(problem.start, batch)
    np.testing.assert_array_equal(got, loss)
    for g, h, s in zip(got_gradients, gradients, scales, strict=True):
        np.testing.assert_array_equal(g, h * s)
    known = Reparametrized(Quadratic(3)).instances(1, COUNT)
    mapped = known.argmin[0] * known.data["scales"][0]
    assert_near(mapped, known.data["inner"]["centre"], 1e-6)
    assert problem.argmin is None


@pytest.mark.parametrize("kind", ["instance", "tensor", "parameter"])
def test_decades_of_the_scales(kind):
    decades = {"instance": 0.0, "tensor": 0.0, "parameter": 0.0, kind: 3.0}
    scales = Reparametrized(INNER, **decades).draw(4, 300)["scales"]
    w, b = (np.log10(s) for s in scales)
    assert w.shape == (300, 4) and b.shape == (300,)
    every = np.hstack([w, b[:, None]])
    assert np.all(np.abs(every) <= 1.5 + 1e-5)
    assert every.min() < -1.4 and every.max() > 1.4
    assert abs(b.mean()) < 5 * 3 / (12 * 300) ** 0.5
    # Whether the entries of w are equal, and whether b equals them.
    spread, apart = np.ptp(w, axis=1), np.abs(w[:, 0] - b)
    small = 1e-5
    assert np.all(spread < small) == (kind != "parameter")
    assert np.all(apart < small) == (kind == "instance")
    assert np.mean(spread > small) in (0, 1)


def test_decades_add_up():
    scales = Reparametrized(INNER, 2.0, 2.0, 2.0).draw(4, 2000)["scales"]
    log = np.log10(np.concatenate([np.ravel(s) for s in scales]))
    assert np.all(np.abs(log) <= 3 + 1e-5) and np.abs(log).max() > 2.5


def test_sparse_gradient_drops_the_stated_share():
    family = SparseGradient(Quadratic(100), 0.3, 0.9)
    problem = family.instances(1, COUNT)
    zeros = problem.data["zeros"].numpy()
    assert np.all((zeros >= 0.3) & (zeros <= 0.9)) and np.ptp(zeros) > 0.1
    start, steps, dropped = problem.start, 60, []
    full = inside(problem).loss_and_gradient(start, ())[1][0].numpy()
    assert np.all(full != 0)
    for seed in range(steps):
        loss, (g,) = problem.loss_and_gradient(start, problem.batch(seed))
        np.testing.assert_array_equal(loss, problem.full_loss(start))
        assert np.all((g == 0) | (g == full))  # the others are unchanged
        dropped.append(g == 0)
    share = np.mean(dropped, axis=(0, 2))
    error = np.sqrt(zeros * (1 - zeros) / (100 * steps))
    assert np.all(np.abs(share - zeros) < 5 * error)
    # The mask differs in every step: no entry is always dropped.
    assert not np.any(np.all(dropped, axis=0)[zeros < 0.8])


def integers(*shape):
    drawn = np.random.default_rng(len(shape)).integers(-3, 4, shape)
    return tf.constant(drawn, tf.float32)


def test_derivative_of_a_masked_gradient_is_the_masked_hessian():
    # Integers, so that float32 is exact.
    family = SparseGradient(Quadratic(6))
    matrix, point = integers(2, 6, 6), (integers(2, 6),)
    inner = {"matrix": matrix, "centre": tf.zeros((2, 6)), "start": point}
    mask = tf.constant([[1, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1]], tf.float32)
    data = {"inner": inner, "zeros": tf.fill((2,), 0.5)}
    batch = {"inner": (), "masks": (mask,)}
    v = 1 + tf.abs(integers(2, 6))
    with tf.GradientTape() as tape:
        tape.watch(point)
        _, (g,) = family.loss_and_gradient(data, point, batch)
        product = tf.reduce_sum(v * g)
    got = tape.gradient(product, point)[0]
    hessian = np.swapaxes(matrix, 1, 2) @ matrix.numpy()
    wanted = np.einsum("bij,bj->bi", hessian, mask * v)
    np.testing.assert_array_equal(got, wanted)
    gradient = np.einsum("bij,bj->bi", hessian, point[0])
    np.testing.assert_array_equal(g, mask * gradient)


def test_gradient_noise():
    family = GradientNoise(Quadratic(100))
    problem = family.instances(1, 20)
    sd = problem.data["sd"].numpy()
    assert np.all((sd >= 0.1) & (sd <= 2)) and np.ptp(sd) > 0.5
    start, steps, noise = problem.start, 40, []
    clean_loss, (clean,) = inside(problem).loss_and_gradient(start, ())
    for seed in range(steps):
        loss, (g,) = problem.loss_and_gradient(start, problem.batch(seed))
        np.testing.assert_array_equal(loss, clean_loss)
        noise.append(np.float64(g - clean) / sd[:, None])
    noise = np.array(noise)
    many = 100 * steps  # numbers for each instance
    assert np.all(np.abs(noise.mean((0, 2))) < 5 / many**0.5)
    assert np.all(np.abs(noise.std((0, 2)) - 1) < 5 / (2 * many) ** 0.5)
    # Independent between instances and between steps.
    flat = np.corrcoef(np.reshape(np.swapaxes(noise, 0, 1), (20, -1)))
    assert np.all(np.abs(flat - np.eye(20)) < 5 / many**0.5)
    between = np.corrcoef(np.reshape(noise, (steps, -1)))
    assert np.all(np.abs(between - np.eye(steps)) < 5 / (20 * 100) ** 0.5)


def test_all_transforms_in_one():
    family = Scaled(Power(SparseGradient(GradientNoise(Reparametrized(INNER)))))
    assert family.name == (
        "scaled(power(sparse(noisy(reparametrized(logistic_regression)))))"
    )
    assert family.noisy and family.minibatched and family.shapes == ((4,), ())
    problem = family.instances(1, COUNT)
    start, masked = problem.start, problem.batch(2)
    powered = inside(problem)
    sparse = inside(powered)
    noisy = inside(sparse)
    changed = inside(noisy)
    noise = masked["inner"]
    scales = changed.data["scales"]
    point = tuple(t * s for t, s in zip(start, scales, strict=True))
    loss, gradients = inside(changed).loss_and_gradient(point, noise["inner"])
    loss = np.float64(loss)
    p, factor = np.float64(powered.data["power"]), problem.data["factor"]
    slope = factor * p * loss ** (p - 1)
    wanted = [
        column(slope, g)
        * mask
        * (np.float64(g) * scale + column(noisy.data["sd"], g) * extra)
        for g, scale, extra, mask in zip(
            gradients, scales, noise["noise"], masked["masks"], strict=True
        )
    ]
    got, got_gradients = problem.loss_and_gradient(start, masked)
    assert_near(got, factor * loss**p)
    assert_near(got_gradients, wanted)
    full = np.float64(inside(changed).full_loss(point))
    assert_near(problem.full_loss(start), factor * full**p)
