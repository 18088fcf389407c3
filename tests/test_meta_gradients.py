"""The meta-gradient through three steps down a bowl, and its derivative."""

import math

import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import RuleConfig
from hrnn_opt.rule import meta_parameters, products
from hrnn_opt.rule import step as rule
from hrnn_opt.rule.segments import Segments
from hrnn_opt.rule.state import initial_state
from tests.test_rule import noisy_vector

# Derivatives treat the alignment's signals as constants, differences do not.
CONFIG = RuleConfig(
    param_units=5, tensor_units=6, global_units=7, alignment=False
)
SEGMENTS = Segments((4, 2))
SIZE, STEPS, LR = SEGMENTS.total_size, 3, 0.125
# Central differences: errors of STEP^2 (truncation) and 1e-16 / STEP
# (rounding), both below 1e-10 of derivatives of size one.
STEP, RTOL, ATOL = 1e-5, 1e-6, 1e-9


def bowl(*lead, seed=0, dtype="float64"):
    """Start and Hessian of 0.5 theta' H theta, for one instance or several."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(*lead, SIZE, SIZE))
    hessian = factor @ np.swapaxes(factor, -1, -2) / SIZE
    theta = rng.normal(size=(*lead, SIZE))
    return tf.constant(theta, dtype), tf.constant(hessian, dtype)


def loss_after_steps(vector, theta, hessian, factor=1.0, stopped=False):
    """Loss at theta; the gradients (times `factor`) are taken at phi."""
    meta = products.from_vector(CONFIG, vector)
    state = initial_state(CONFIG, meta, SEGMENTS, theta.shape[:-1])
    theta = phi = tf.transpose(theta)  # instances come last
    lr = tf.constant(LR, theta.dtype)
    for _ in range(STEPS):
        g = tf.transpose(tf.linalg.matvec(hessian, tf.transpose(phi)))
        g = tf.cast(factor, g.dtype) * (tf.stop_gradient(g) if stopped else g)
        theta, phi, state = rule.step(
            CONFIG, meta, SEGMENTS, state, theta, phi, g, lr
        )
    theta = tf.transpose(theta)
    value = tf.reduce_sum(theta * tf.linalg.matvec(hessian, theta), axis=-1)
    return tf.reduce_mean(value) / 2


@tf.function(autograph=False)
def loss_and_gradient(vector, theta, hessian, factor=1.0, stopped=False):
    with tf.GradientTape() as tape:
        tape.watch(vector)
        loss = loss_after_steps(vector, theta, hessian, factor, stopped)
    return loss, tape.gradient(loss, vector)


@tf.function(autograph=False)
def gradient_of_squared_norm(vector, theta, hessian, factor=1.0):
    with tf.GradientTape() as tape:
        tape.watch((vector, theta))
        _, gradient = loss_and_gradient(vector, theta, hessian, factor)
        squared = tf.reduce_sum(gradient * gradient)
    return squared, *tape.gradient(squared, (vector, theta))


def meta_vector(dtype="float64"):
    return tf.constant(noisy_vector(CONFIG, dtype=dtype))


def some_coordinates():
    """One coordinate of each named array, and forty more."""
    rng = np.random.default_rng(5)
    coordinates, begin = [], 0
    for shape in meta_parameters.shapes(CONFIG).values():
        end = begin + math.prod(shape)
        coordinates.append(rng.integers(begin, end))
        begin = end
    more = rng.choice(begin, 40, replace=False)
    return np.unique(np.concatenate([coordinates, more]))


@pytest.mark.parametrize("lead", [(), (2,)], ids=["one", "two instances"])
def test_central_differences(lead):
    vector, problem = meta_vector(), bowl(*lead)
    gradient = loss_and_gradient(vector, *problem)[1].numpy()
    for i in some_coordinates():
        change = np.zeros_like(vector)
        change[i] = STEP
        above, _ = loss_and_gradient(vector + change, *problem)
        below, _ = loss_and_gradient(vector - change, *problem)
        slope = (above - below).numpy() / (2 * STEP)
        np.testing.assert_allclose(gradient[i], slope, RTOL, ATOL, str(i))


def test_every_array_has_a_gradient():
    _, gradient = loss_and_gradient(meta_vector(), *bowl())
    named = meta_parameters.unflatten(CONFIG, gradient)
    for name, array in named._asdict().items():
        parts = array if isinstance(array, tuple) else (array,)
        assert all(np.any(part) for part in parts), name


def test_instances_are_averaged():
    theta, hessian = bowl(2)
    _, together = loss_and_gradient(meta_vector(), theta, hessian)
    singles = [
        loss_and_gradient(meta_vector(), theta[b], hessian[b])[1]
        for b in range(2)
    ]
    np.testing.assert_allclose(together, np.mean(singles, axis=0), 1e-9, 1e-13)


def test_second_derivative_by_central_differences():
    vector, (theta, hessian) = meta_vector(), bowl()
    _, *gradients = gradient_of_squared_norm(vector, theta, hessian)
    rng = np.random.default_rng(6)
    for _ in range(3):
        to = [rng.normal(size=x.shape) for x in (vector, theta)]
        above, below = (
            gradient_of_squared_norm(
                vector + step * to[0], theta + step * to[1], hessian
            )[0]
            for step in (STEP, -STEP)
        )
        slope = (above - below).numpy() / (2 * STEP)
        wanted = sum(np.vdot(g, t) for g, t in zip(gradients, to, strict=True))
        np.testing.assert_allclose(wanted, slope, 1e-5)


# Elements that never see a gradient.
SILENT = {"none": [], "some": [1, 4], "a tensor": [4, 5], "all": range(SIZE)}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_second_derivatives_are_finite_without_gradients(dtype):
    theta, hessian = bowl(dtype=dtype)
    # One test for all, since TensorFlow optimises the graph again in each.
    for name, silent in SILENT.items():
        heard = np.ones((SIZE, SIZE), dtype)
        heard[silent] = heard[:, silent] = 0
        results = gradient_of_squared_norm(
            meta_vector(dtype), theta, heard * hessian
        )
        assert all(np.all(np.isfinite(value)) for value in results), name
        assert (results[0] == 0) == (name == "all")
    at_minimum = gradient_of_squared_norm(
        meta_vector(dtype), tf.zeros_like(theta), hessian
    )
    assert all(np.all(np.isfinite(value)) for value in at_minimum)


def test_scale_of_the_loss_does_not_matter_in_float32():
    theta, hessian = bowl(dtype="float32")
    heard = np.ones((SIZE, SIZE), "float32")
    heard[1] = heard[:, 1] = 0
    problem = meta_vector("float32"), theta, heard * hessian
    loss, gradient = loss_and_gradient(*problem)
    for factor in (1e-30, 1e30):
        scaled_loss, scaled = loss_and_gradient(*problem, tf.constant(factor))
        assert np.all(np.isfinite(scaled)), factor
        np.testing.assert_allclose(scaled_loss, loss, 1e-4)
        error = np.max(np.abs(scaled - gradient))
        assert error < 1e-3 * np.max(np.abs(gradient)), factor


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_second_derivatives_are_finite_at_every_scale_in_float32(factor):
    results = gradient_of_squared_norm(
        meta_vector("float32"), *bowl(dtype="float32"), tf.constant(factor)
    )
    assert all(np.all(np.isfinite(value)) for value in results)


def test_gradients_of_the_problem_count():
    problem = meta_vector(), *bowl()
    loss, whole = loss_and_gradient(*problem)
    same_loss, first_order = loss_and_gradient(*problem, stopped=True)
    np.testing.assert_allclose(same_loss, loss, 1e-14)
    change = np.linalg.norm(whole - first_order)
    assert change > 1e-4 * np.linalg.norm(whole)


def test_skipped_step_has_no_part_in_the_meta_gradient():
    vector, (theta, hessian) = meta_vector(), bowl(2)

    def gradient(theta, hessian, added):
        with tf.GradientTape() as tape:
            tape.watch(vector)
            meta = products.from_vector(CONFIG, vector)
            instances = theta.shape[:-1]
            state = initial_state(CONFIG, meta, SEGMENTS, instances)
            theta = phi = tf.transpose(theta)
            for constant in added:
                g = tf.linalg.matvec(hessian, tf.transpose(phi))
                g = tf.transpose(g + constant)
                theta, phi, state = rule.step(
                    CONFIG, meta, SEGMENTS, state, theta, phi, g, LR
                )
            loss = tf.reduce_sum(theta**2)
        return tape.gradient(loss, vector)

    # The second instance is skipped at its second step.
    got = gradient(theta, hessian, [0.0, [[0.0], [np.nan]]])
    first = gradient(theta[0], hessian[0], [0.0, 0.0])
    second = gradient(theta[1], hessian[1], [0.0])
    np.testing.assert_allclose(got, first + second, 1e-9, 1e-13)
