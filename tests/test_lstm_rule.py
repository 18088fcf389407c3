"""The LSTM rule against a float64 NumPy reference, and its derivatives."""

import numpy as np
import pytest
import tensorflow as tf

from tests.meta_cases import FAMILY
from training.rules.lstm import LSTMRule, lstm, preprocess

RULE = LSTMRule(units=3, p=4.0, scale=0.1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(parts, theta, gradients):
    """theta after every step; one parameter of one instance at a time."""
    w1, b1, w2, b2, w, b = parts
    u, points = len(w[0]), []
    h1, c1, h2, c2 = (
        {(i, n): np.zeros(u) for i in range(len(theta)) for n in
         range(len(theta[0]))} for _ in range(4)
    )  # fmt: skip
    theta = theta.copy()
    for g in gradients:
        for i, n in h1:
            if abs(g[i, n]) >= np.exp(-RULE.p):
                x = [np.log(abs(g[i, n])) / RULE.p, np.sign(g[i, n])]
            else:
                x = [-1.0, np.exp(RULE.p) * g[i, n]]
            for weights, bias, h, c in ((w1, b1, h1, c1), (w2, b2, h2, c2)):
                z = weights @ np.concatenate([x, h[i, n]]) + bias
                enter, forget, out, new = np.split(z, 4)
                c[i, n] = sigmoid(forget) * c[i, n] + sigmoid(enter) * np.tanh(
                    new
                )
                h[i, n] = x = sigmoid(out) * np.tanh(c[i, n])
            theta[i, n] += RULE.scale * (w[0] @ x + b[0])
        points.append(theta.copy())
    return np.array(points)


def test_twenty_steps_are_those_of_the_reference():
    random = np.random.default_rng(1)
    vector = random.normal(0, 0.7, RULE.initial_meta(0).shape)
    theta = random.normal(size=(2, 5))
    # Gradients of all sizes, including zero, on both sides of exp(-p).
    gradients = random.normal(size=(20, 2, 5)) * 10 ** random.uniform(
        -6, 2, (20, 2, 5)
    )
    gradients[3, 0, 0] = 0.0
    meta = RULE.unpack(tf.constant(vector))
    state = RULE.initial_state(meta, (3, 2), tf.constant(theta))
    found = []
    for g in gradients:
        state = RULE.step(meta, (3, 2), state, tf.constant(g), None)
        found.append(RULE.point(state).numpy())
    wanted = reference([m.numpy() for m in meta], theta, gradients)
    np.testing.assert_allclose(found, wanted, 1e-12, 1e-12)
    assert np.abs(wanted[-1] - theta).min() > 1e-3


def test_preprocessing_by_hand():
    found = preprocess(tf.constant([1.0, -(np.e**2), np.e**-6, 0.0]), 4.0)
    wanted = [[0.0, 0.5, -1.0, -1.0], [1.0, -1.0, np.e**-2, 0.0]]
    np.testing.assert_allclose(found, wanted, 1e-6)


def test_a_cell_is_kept_by_an_open_forget_gate():
    kernel = tf.zeros((4, 2))
    bias = tf.constant([-50.0, 50.0, 50.0, 1.0])
    one = tf.ones((1, 1, 1))
    h, c = lstm(kernel, bias, one, one, 0.5 * one)
    np.testing.assert_allclose(c, 0.5 * one, 1e-6)
    np.testing.assert_allclose(h, np.tanh(0.5) * one, 1e-6)


def test_meta_gradient_against_differences():
    vector = np.random.default_rng(2).normal(0, 0.5, RULE.initial_meta(0).shape)
    theta = tf.constant([[0.3, -0.2, 0.9]], tf.float64)

    def value(vector):
        meta = RULE.unpack(vector)
        state = RULE.initial_state(meta, (3,), theta)
        for _ in range(3):
            point = RULE.point(state)
            state = RULE.step(meta, (3,), state, 2.0 * point, None)
        return tf.reduce_sum(RULE.point(state) ** 2)

    x = tf.constant(vector)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = value(x)
    gradient = tape.gradient(loss, x).numpy()
    for k in np.linspace(0, len(vector) - 1, 12).astype(int):
        step = np.zeros_like(vector)
        step[k] = 1e-6
        after = value(tf.constant(vector + step))
        before = value(tf.constant(vector - step))
        difference = float(after - before) / 2e-6
        assert gradient[k] == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_gradients_of_zero_have_finite_derivatives():
    rule = LSTMRule(units=2)
    problem = FAMILY.instances(0, 2)
    vector = tf.constant(rule.initial_meta(0))
    g = tf.zeros((2, FAMILY.dimension))
    with tf.GradientTape() as tape:
        tape.watch((vector, g))
        meta = rule.unpack(vector)
        theta = FAMILY.flatten(problem.start)
        state = rule.initial_state(meta, FAMILY.sizes, theta)
        state = rule.step(meta, FAMILY.sizes, state, g, None)
        total = tf.reduce_sum(rule.point(state))
    for gradient in tape.gradient(total, (vector, g)):
        assert np.isfinite(gradient).all()
