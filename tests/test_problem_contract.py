"""What every family must do, both alone and as the sets wrap it."""

import numpy as np
import pytest
import tensorflow as tf

import problems
from tests.problem_cases import (
    CASES,
    COUNT,
    assert_all_close,
    differs,
    drawn,
    everywhere,
    points,
    sample,
)

PLANE = [family.name for family in problems.classic.FUNCTIONS]


@everywhere
def test_shapes(name):
    family, (problem, batch, _) = CASES[name], drawn(name)
    assert family.dimension == sum(family.sizes)
    assert family.dimension == sum(int(np.prod(s)) for s in family.shapes)
    loss, gradients = problem.loss_and_gradient(problem.start, batch)
    assert loss.shape == problem.full_loss(problem.start).shape == (COUNT,)
    for tensors in (problem.start, gradients, problem.argmin):
        if tensors is not None:
            got = tuple(tuple(tensor.shape) for tensor in tensors)
            assert got == tuple((COUNT, *shape) for shape in family.shapes)
            assert {tensor.dtype for tensor in tensors} == {tf.float32}
    flat = family.flatten(problem.start)
    assert flat.shape == (COUNT, family.dimension)
    wanted = [np.reshape(t, (COUNT, -1)) for t in problem.start]
    np.testing.assert_array_equal(flat, np.concatenate(wanted, 1))
    assert not differs(family.unflatten(flat), problem.start)


@everywhere
def test_losses_are_finite_and_never_negative(name):
    problem, batch, _ = drawn(name)
    for point in points(name):
        for loss in (problem.loss(point, batch), problem.full_loss(point)):
            assert np.all(np.isfinite(loss)) and np.all(loss >= 0)


@everywhere
def test_minimum_is_known_and_reached(name):
    family, problem = CASES[name], drawn(name)[0]
    if problem.argmin is None:
        # Its infimum is unknown, or lies at infinity.
        infinite = any(word in family.name for word in ("regression", "valley"))
        assert family.minimum is None or infinite
        return
    assert family.minimum == 0
    # A change of variables rounds the minimiser by 1e-7, which shows fully in a
    # norm; the square root (a power) of Branin's 1e-13 is as large.
    loss = problem.full_loss(problem.argmin)
    start = problem.full_loss(problem.start)
    assert np.all(loss <= 1e-6 * (1 + start))


@everywhere
def test_instances_are_independent_of_each_other(name):
    family, (problem, batch, _) = CASES[name], drawn(name)
    point = sample(problem, 1.0)
    together = (
        problem.full_loss(point),
        *problem.loss_and_gradient(point, batch),
    )
    for i in range(COUNT):
        data, one, params, wanted = tf.nest.map_structure(
            lambda t: t[i : i + 1],  # noqa: B023
            (problem.data, batch, point, together),
        )
        alone = (
            family.full_loss(data, params),
            *family.loss_and_gradient(data, params, one),
        )
        # The sums have another order, and partly cancel.
        assert_all_close(alone, wanted, 1e-4)


@everywhere
def test_a_seed_is_a_draw(name):
    family, (problem, batch, _) = CASES[name], drawn(name)
    again = family.instances(0, COUNT)
    assert not differs(again.data, problem.data)
    assert not differs(again.batch(11), batch)
    other = family.instances(1, COUNT)
    assert differs(other.start, problem.start)
    # The instances of one draw differ as well.
    start = family.flatten(problem.start).numpy()
    assert len(np.unique(start, axis=0)) == COUNT


@everywhere
def test_flags_tell_the_truth(name):
    family, (problem, one, two) = CASES[name], drawn(name)
    start = problem.start
    loss, gradients = problem.loss_and_gradient(start, one)
    _, other = problem.loss_and_gradient(start, two)
    np.testing.assert_array_equal(loss, problem.loss(start, one))
    assert differs(loss, problem.loss(start, two)) == family.minibatched
    assert differs(gradients, other) == family.noisy
    assert family.noisy or not family.minibatched
    if not family.noisy:
        with tf.GradientTape() as tape:
            tape.watch(start)
            full = problem.full_loss(start)
        np.testing.assert_array_equal(loss, full)
        assert_all_close(gradients, tape.gradient(full, start), 1e-5)


@pytest.mark.parametrize("name", PLANE)
def test_no_rounding_makes_a_loss_negative(name):
    problem = problems.get(name).instances(0)
    minimiser = problem.argmin[0][0].numpy()
    for half in (1e-7, 1e-6, 1e-5, 1e-3, 1.0, 30.0, 1e4):
        x, y = np.meshgrid(*[np.linspace(-half, half, 101)] * 2)
        grid = minimiser + np.stack([x.ravel(), y.ravel()], 1)
        loss = problem.full_loss((tf.constant(grid, tf.float32),))
        assert np.all(loss >= 0) and np.all(np.isfinite(loss))
        # Smallest in the middle; a minimum that is rounded is flat there.
        assert loss[len(loss) // 2] <= np.min(loss) + 1e-7
