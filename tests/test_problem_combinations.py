"""Sums and choices of families, and operations with finite derivatives."""

import math

import numpy as np
import pytest
import tensorflow as tf

import problems
from problems import Choice, GradientNoise, SparseGradient, Sum, safe
from problems.classic import FUNCTIONS
from problems.convex import LogisticRegression, Quadratic
from problems.minibatch import MinibatchQuadratic

COUNT = 5
NOISY = LogisticRegression(4, 30), SparseGradient(Quadratic(6)), Quadratic(3)


def test_sum():
    family = Sum(NOISY)
    assert family.shapes == ((4,), (), (6,), (3,)) and family.dimension == 14
    assert family.noisy and family.minibatched and family.minimum == 0
    problem = family.instances(1, COUNT)
    batch, start = problem.batch(2), problem.start
    loss, gradients = problem.loss_and_gradient(start, batch)
    assert len(gradients) == 4
    total = full = 0.0
    for part, data, one, where in zip(
        NOISY,
        problem.data,
        batch,
        (slice(0, 2), slice(2, 3), slice(3, 4)),
        strict=True,
    ):
        own = problems.Problem(part, data)
        mine, wanted = own.loss_and_gradient(own.start, one)
        total, full = total + mine, full + own.full_loss(own.start)
        for a, b in zip(start[where], own.start, strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(gradients[where], wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(loss, total, 1e-6)
    np.testing.assert_allclose(problem.loss(start, batch), total, 1e-6)
    np.testing.assert_allclose(problem.full_loss(start), full, 1e-6)


def test_sum_knows_its_minimum_if_all_parts_do():
    known, unknown = Quadratic(3), LogisticRegression(4, 30, 0.2)
    assert Sum((known, unknown)).minimum is None
    assert Sum((known, NOISY[0])).instances(0, 2).argmin is None
    point = Sum((known, FUNCTIONS[0])).instances(0, 2)
    assert [t.shape[1] for t in point.argmin] == [3, 2]
    assert np.all(point.full_loss(point.argmin) == 0)
    assert not Sum((known, known)).noisy and Sum((known, unknown)).noisy


def test_parts_of_a_sum_are_independent_draws():
    problem = Sum((Quadratic(3), Quadratic(3))).instances(0, COUNT)
    first, second = problem.start
    assert np.all(first != second)


def test_choice_is_the_chosen_family():
    family = Choice(FUNCTIONS, "plane")
    assert family.minimum == 0 and family.dimension == 2 and not family.noisy
    problem = family.instances(1, 200)
    chosen = problem.data["choice"].numpy()
    share = np.bincount(chosen, minlength=8) / 200
    # Each has a share of an eighth, to within five standard deviations.
    assert np.all(np.abs(share - 1 / 8) < 5 * (1 / 8 * 7 / 8 / 200) ** 0.5)
    loss, (gradient,) = problem.loss_and_gradient(problem.start, ())
    argmin = problem.argmin[0]
    for k, part in enumerate(FUNCTIONS):
        own = problems.Problem(part, problem.data["parts"][k])
        mine = chosen == k
        wanted, (slope,) = own.loss_and_gradient(own.start, ())
        for a, b in (
            (problem.start[0], own.start[0]),
            (loss, wanted),
            (argmin, own.argmin[0]),
        ):
            np.testing.assert_array_equal(a[mine], b[mine])
        np.testing.assert_allclose(gradient[mine], slope[mine], 1e-6)


def test_choice_stays_finite_where_another_family_is_not():
    # Far out Beale's function overflows, and inf times 0 would be NaN in the
    # gradient; Booth's does not.
    problem = Choice(FUNCTIONS, "plane").instances(1, 200)
    booth = problem.data["choice"].numpy() == 3
    far = (tf.fill((200, 2), 1e13),)
    loss, (gradient,) = problem.loss_and_gradient(far, ())
    assert np.all(np.isfinite(loss[booth])) and not np.all(np.isfinite(loss))
    assert np.all(np.isfinite(gradient[booth]))


def test_choice_refuses_unequal_shapes():
    parts = Quadratic(3), Quadratic(4)
    with pytest.raises(ValueError, match=r"equal shapes.*quadratic_4") as error:
        Choice(parts, "both")
    assert "Argument `parts`" in str(error.value)


@pytest.mark.parametrize(
    "part", [GradientNoise(Quadratic(10)), MinibatchQuadratic(10)]
)
def test_choice_refuses_noise(part):
    with pytest.raises(ValueError, match=r"wrap the choice.*Received") as error:
        Choice((Quadratic(10), part), "both")
    assert f"['{part.name}']" in str(error.value)


def derivatives(function, x):
    """Value, first and second derivative at float32 numbers [n]."""
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = function(x)
        first = inner.gradient(value, x)
    return value, first, outer.gradient(first, x)


X = np.array([0, 1e-25, 1e-10, 1, 30])


@pytest.mark.parametrize("p", [0.25, 0.5, 1.0, 1.5, 2.0, 4.0])
def test_power_and_its_derivatives(p):
    got = derivatives(lambda x: safe.power(x, p), X)
    slope = derivatives(lambda x: safe.power_slope(x, p), X)
    large = X > 1e-20
    x = np.where(large, X, 1)
    wanted = (x**p, p * x ** (p - 1), p * (p - 1) * x ** (p - 2))
    for a, b in zip(got, wanted, strict=True):
        # Pow of 1e-10 in float32: an error of 1e-7 in the logarithm, -23;
        # subnormal numbers become zero.
        np.testing.assert_allclose(a, large * b, 1e-5, 1e-37)
    for a, b in zip(slope[:2], wanted[1:], strict=True):
        np.testing.assert_allclose(a, large * b, 1e-5, 1e-37)


def test_root_and_its_derivatives():
    got = derivatives(safe.sqrt, X)
    large = X > 1e-20
    x = np.where(large, X, 1)
    wanted = (x**0.5, 0.5 * x**-0.5, -0.25 * x**-1.5)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, large * b, 1e-6)


def test_smallest_numbers_have_finite_derivatives():
    x = np.float32([1.001e-20, 1e-19, 1e-12])
    for function in (safe.sqrt, lambda x: safe.power(x, 0.5)):
        assert np.all(np.isfinite(derivatives(function, x)))


def test_log_mean_cosh():
    # With one term the derivatives are tanh and 1 / cosh^2.
    t = np.array([0, 1e-4, 0.999, 1.0, 1.001, 100])
    t = np.concatenate([t, -t])
    got = derivatives(lambda x: safe.log_mean_cosh(x[:, None]), t)
    log_cosh = np.abs(t) + np.log1p(np.exp(-2 * np.abs(t))) - math.log(2)
    log_cosh[np.abs(t) < 1e-3] = t[np.abs(t) < 1e-3] ** 2 / 2
    # 2e-7: far away it is a difference of numbers of size 1.
    np.testing.assert_allclose(got[0], log_cosh, 1e-6, 2e-7)
    assert np.all(got[0] >= 0) and np.all(got[0][t == 0] == 0)
    small = np.abs(t) == 1e-4
    np.testing.assert_allclose(got[0][small], log_cosh[small], 1e-6, 0)
    np.testing.assert_allclose(got[1], np.tanh(t), 1e-6, 1e-7)
    np.testing.assert_allclose(got[2], 1 / np.cosh(t) ** 2, 1e-5, 1e-6)


def test_log_mean_cosh_of_several():
    t = np.array([[1e-4, -2e-4, 0], [0.5, -3, 1], [100, 99, -200], [0, 0, 0]])
    got = safe.log_mean_cosh(tf.constant(t, tf.float32))
    wanted = np.log1p(np.mean(2 * np.sinh(t / 2) ** 2, axis=1))
    np.testing.assert_allclose(got, wanted, 1e-6)
