"""The equations of eigenbases."""

import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt.rule import eigenbasis
from hrnn_opt.rule.eigenbasis import Sides


def random_basis(d, seed=0):
    rng = np.random.default_rng(seed)
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


@pytest.mark.parametrize(
    "shape, sides",
    [
        ((), None),
        ((5,), None),
        ((5, 1), None),
        ((1, 5), None),
        ((5, 3), Sides(5, 3, True, True)),
        ((3, 20), Sides(3, 20, True, False)),
        ((20, 3), Sides(20, 3, False, True)),
        ((20, 30), None),
        # A kernel of a convolution, and those of attention layers.
        ((12, 3, 4), Sides(36, 4, False, True)),
        ((3, 3, 4, 10), Sides(36, 10, False, True)),
        ((8, 2, 4), Sides(8, 8, True, True)),
        ((2, 4, 8), Sides(8, 8, True, True)),
    ],
)
def test_a_tensor_is_cut_where_it_is_closest_to_square(shape, sides):
    assert eigenbasis.sides(shape, 10) == sides


def test_moments_are_those_of_gradients_of_norm_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 3))
    old = np.eye(4), 2 * np.eye(3)
    unit = x / np.linalg.norm(x)
    wanted = 0.95 * old[0] + 0.05 * unit @ unit.T
    # Squares of the last one are not in the range of float64.
    for scale in (1.0, 1e-3, 1e200):
        left, right = eigenbasis.moments(tf.constant(scale * x), *old)
        np.testing.assert_allclose(left, wanted, 1e-12)
        np.testing.assert_allclose(
            right, 0.95 * old[1] + 0.05 * unit.T @ unit, 1e-12
        )
    for kept, before in zip(
        eigenbasis.moments(tf.zeros((4, 3), "float64"), *old), old, strict=True
    ):
        np.testing.assert_array_equal(kept, before)
    left, none = eigenbasis.moments(tf.constant(x), old[0], None)
    assert none is None
    np.testing.assert_allclose(left, wanted, 1e-12)


def test_bases_tend_to_the_eigenvectors():
    vectors = random_basis(6)
    values = 4.0 ** -np.arange(6)
    moment = tf.constant(vectors * values @ vectors.T)
    basis = tf.eye(6, dtype="float64")
    for _ in range(60):
        before, basis = basis, eigenbasis.turned(moment, basis)
        np.testing.assert_allclose(
            tf.transpose(basis) @ basis, np.eye(6), atol=1e-12
        )
        # No vector changes its sign.
        assert np.all(np.sum(before * basis, axis=0) >= 0)
    np.testing.assert_allclose(np.abs(vectors.T @ basis), np.eye(6), atol=1e-6)


def test_directions_without_gradient_stay():
    """In the null space of the moments no vector turns."""
    basis = random_basis(6)
    moment = (basis[:, :2] * [2.0, 1.0]) @ basis[:, :2].T
    new = eigenbasis.turned(tf.constant(moment), tf.constant(basis))
    np.testing.assert_allclose(new, basis, atol=1e-8)
    still = eigenbasis.turned(tf.zeros((6, 6)), tf.eye(6))
    assert np.isfinite(still).all()


@pytest.mark.parametrize("left, right", [(1, 1), (1, 0), (0, 1)])
def test_what_goes_in_comes_out(left, right):
    rng = np.random.default_rng(1)
    x = tf.constant(rng.normal(size=(2, 4, 3)))
    old = random_basis(4) if left else None, random_basis(3) if right else None
    new = (
        random_basis(4, 1) if left else None,
        random_basis(3, 1) if right else None,
    )
    seen = eigenbasis.into(x, *old)
    assert not np.allclose(seen, x)
    np.testing.assert_allclose(eigenbasis.out_of(seen, *old), x, 1e-12)
    np.testing.assert_allclose(
        eigenbasis.carried(seen, old, new), eigenbasis.into(x, *new), 1e-10
    )


@pytest.mark.parametrize(
    "since, growth, length, limit, due",
    [
        ([9, 9], [0.0, 0.0], [1.0, 1.0], 0.5, False),
        ([3, 10], [0.0, 0.0], [1.0, 1.0], 0.5, True),
        ([3, 10], [0.1, 0.4], [0.1, 0.1], 0.5, False),
        ([3, 10], [0.1, 0.4], [0.1, 0.1], 0.05, True),
        ([3, 10], [0.1, 0.4], [0.1, 0.1], 0.0, True),
        ([3, 10], [-0.1, 0.4], [0.1, 0.1], 0.5, True),
        # Geometric means of 0.45 and 0.63.
        ([3, 50], [0.1, 0.4], [0.1, 2.0], 0.5, False),
        ([3, 50], [0.1, 0.4], [0.1, 4.0], 0.5, True),
    ],
)
def test_new_bases_are_due(since, growth, length, limit, due):
    found = eigenbasis.due(
        tf.constant(since), tf.constant(growth), tf.math.log(length), limit
    )
    assert bool(found) == due
