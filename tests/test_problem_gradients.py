"""Gradients of every family: finite, right, unbiased, and traceable."""

import numpy as np
import pytest
import tensorflow as tf

import problems
import problems.streams
from problems.convex import LogisticRegression
from tests.problem_cases import (
    CASES,
    COUNT,
    assert_all_close,
    drawn,
    everywhere,
    noise_free,
    sample,
)


@everywhere
def test_first_and_second_derivatives_are_finite(name):
    problem, batch, _ = drawn(name)
    family = problem.family
    rng = np.random.default_rng(1)
    direction = [
        tf.constant(rng.normal(size=(COUNT, *shape)), tf.float32)
        for shape in family.shapes
    ]
    for point in (problem.start, sample(problem, 1.0), problem.argmin):
        if point is None:
            continue
        with tf.GradientTape() as tape:
            tape.watch(point)
            gradients = problem.loss_and_gradient(point, batch)[1]
            # Squares are not tested: they overflow where gradients need not.
            product = sum(
                tf.reduce_sum(g * v)
                for g, v in zip(gradients, direction, strict=True)
            )
        second = tape.gradient(
            product, point, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        for tensor in (*gradients, *second):
            assert np.all(np.isfinite(tensor))


def double(nest):
    return tf.nest.map_structure(
        lambda t: tf.cast(t, tf.float64) if t.dtype.is_floating else t, nest
    )


@noise_free
def test_gradient_is_the_slope_of_the_full_loss(name):
    family, (problem, _, _) = CASES[name], drawn(name)
    batch = problem.batch(0)
    # In float64, except that matrix_inverse has a float32 identity matrix. It
    # is quadratic, so a long step has only the error of rounding.
    exact = name != "matrix_inverse"
    step, tolerance = (1e-5, 1e-6) if exact else (0.3, 1e-4)
    data = double(problem.data) if exact else problem.data
    start = family.start(data)
    rng = np.random.default_rng(2)
    for _ in range(3):
        # Relative to the parameters, whose scales differ.
        move = [
            tf.constant(step * rng.normal(size=t.shape), t.dtype) * tf.abs(t)
            for t in start
        ]
        ahead, behind = (
            family.full_loss(
                data, tuple(t + s * m for t, m in zip(start, move, strict=True))
            )
            for s in (1, -1)
        )
        got = family.loss_and_gradient(data, start, batch)[1]
        terms = np.concatenate(
            [
                np.reshape(g * m, (COUNT, -1))
                for g, m in zip(got, move, strict=True)
            ],
            axis=1,
        )
        difference = np.abs((ahead - behind) / 2 - terms.sum(1))
        # The last term: rounding of the losses, where they are flat.
        allowed = tolerance * np.abs(terms).sum(1) + 1e-15 * (1 + ahead)
        assert np.all(difference <= allowed)


@pytest.mark.parametrize(
    "family",
    [LogisticRegression(5, 150), problems.get("minibatch_quadratic")],
    ids=lambda family: family.name,
)
def test_minibatches_are_fair(family):
    # One instance many times, each time with another minibatch.
    many = 4000
    data = family.draw(3, 1)
    for size in (10, 149):
        data["batch_size"] = tf.constant([size])
        same = tf.nest.map_structure(lambda t: tf.repeat(t, many, 0), data)
        problem = problems.Problem(family, same)
        start = problem.start
        loss, gradients = problem.loss_and_gradient(start, problem.batch(5))
        with tf.GradientTape() as tape:
            tape.watch(start)
            full = problem.full_loss(start)
        wanted = tape.gradient(full, start)
        for got, mean in zip((loss, *gradients), (full, *wanted), strict=True):
            error = np.std(got, axis=0) / many**0.5
            away = np.abs(np.mean(got, axis=0) - mean[0])
            # 1e-6: sums of 4,000 float32 numbers.
            assert np.all(away <= 5 * error + 1e-6)


def test_ackleys_tip_has_no_slope():
    zero = (tf.zeros((1, 2)),)
    problem = problems.get("ackley").instances(0)
    loss, (slope,) = problem.loss_and_gradient(zero, ())
    assert loss[0] == 0 and np.all(slope == 0)


TRACED = [
    *problems.names(),
    *("paper/plane_power", "paper/plane_noisy", "paper/tasks"),
]


@pytest.mark.parametrize("name", TRACED)
def test_works_in_a_traced_function(name):
    family, (problem, batch, _) = CASES[name], drawn(name)

    @tf.function(autograph=False)
    def step(drawing, stepping):
        drawn = problems.Problem(family, family.draw(drawing, COUNT))
        random = drawn.batch(stepping)
        step = drawn.loss_and_gradient(drawn.start, random)
        return drawn.data, random, step

    got = step(problems.draws.as_seed(0), problems.draws.as_seed(11))
    wanted = problem.loss_and_gradient(problem.start, batch)
    # The random numbers are the same; sums have another order.
    assert_all_close(got[0], problem.data, 1e-4)
    # Targets of a stream are the outputs of a network.
    computed = isinstance(family, problems.streams.Stream)
    assert_all_close(got[1], batch, 1e-5 if computed else 1e-6)
    assert_all_close(got[2], wanted, 1e-4)
