"""Segments of steps, forwards and backwards, against plain loops on a tape."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt.rule.config import WITHOUT_LENGTH, WITHOUT_TENSOR_RNN, RuleConfig
from problems.combinations import Sum
from problems.convex import Quadratic
from problems.matrices import MatrixFactorization
from problems.minibatch import MinibatchQuadratic
from problems.transforms import GradientNoise
from tests.meta_cases import (
    COUNT,
    FAMILY,
    STEPS,
    TINY,
    assert_near,
    by_tape,
    case,
    cotangent_of,
    filled,
    floating,
)
from training.engine.sensitivity import sensitivity
from training.engine.unroll import Unroll

NOISY = GradientNoise(Sum((Quadratic(2), MinibatchQuadratic(3))))


@pytest.fixture(scope="module")
def compiled():
    """A case that XLA compiles, as in meta-training."""
    return case(FAMILY, Unroll)


WEIGHT = np.array([1.0, 0.5, 2.0], "float32")


def test_backward_equals_the_tape(compiled):
    segment = compiled.forward()
    cotangent = cotangent_of(segment.state)
    gradient, bar, largest, clipped = compiled.backward(
        segment.states, cotangent, WEIGHT
    )
    wanted, bars, state = by_tape(
        compiled, compiled.state, range(STEPS), cotangent, WEIGHT
    )
    # The initial hidden states are part of the state that was given.
    assert np.all(wanted[:-6] != 0) and not np.any(wanted[-6:])
    assert_near(gradient, wanted)
    assert_near(floating(bar), bars)
    assert_near(floating(segment.state), floating(state))
    assert np.all(largest > 0) and not np.any(clipped)


def test_backward_where_gradients_are_negligible():
    config = dataclasses.replace(
        TINY,
        negligible=0.5,
        tensor_spread=1e-4,
        tensor_growth=1e-6,
        tensor_decay=0.2,
        catch_up=3.0,
    )
    given = case(FAMILY, config=config)
    segment = given.forward()
    zeros = tf.nest.map_structure(tf.zeros_like, segment.state)
    gradient, *_ = given.backward(segment.states, zeros, WEIGHT)
    wanted, *_ = by_tape(given, given.state, range(STEPS), zeros, WEIGHT)
    assert_near(gradient, wanted)
    # Some parameters move and some do not.
    still = np.equal(segment.state.theta, given.state.theta)
    assert np.any(still) and not np.all(still)


def test_losses_are_those_of_theta(compiled):
    segment = compiled.forward()
    theta = np.asarray(segment.state.theta, "float64")
    u, v = theta[:6].reshape(3, 2, COUNT), theta[6:].reshape(2, 3, COUNT)
    left, right = (np.asarray(x, "float64") for x in compiled.data["factors"])
    for b in range(COUNT):
        loss = np.mean((u[..., b] @ v[..., b] - left[b] @ right[b]) ** 2)
        np.testing.assert_allclose(segment.losses[-1, b], loss, 1e-5)
    np.testing.assert_allclose(
        segment.values,
        np.log(np.asarray(segment.losses, "float64") + 1e-10),
        1e-5,
        1e-6,
    )
    # `states` are those before each step: `losses[0]` is that of state 1.
    theta = tf.transpose(segment.states[0][1])
    loss = FAMILY.full_loss(compiled.data, FAMILY.unflatten(theta))
    np.testing.assert_allclose(segment.losses[0], loss, 1e-5)


def test_meta_gradient_by_central_differences(compiled):
    segment = compiled.forward()
    zeros = tf.nest.map_structure(tf.zeros_like, segment.state)
    lr = tf.constant([0.1, 0.1, 0.1])
    states = compiled.forward(lr=lr).states
    gradient, *_ = compiled.backward(states, zeros, np.ones(COUNT), lr=lr)
    slope = float(tf.norm(gradient))
    size = 0.02
    # The initial state stays fixed: it counts as an input of the segment.
    up, down = (
        compiled.forward(
            vector=compiled.vector + sign * size * gradient / slope, lr=lr
        ).values
        for sign in (1, -1)
    )
    difference = float(tf.reduce_sum(up - down)) / (2 * size)
    # Rounding of 15 values of about 1, and a third derivative times size^2.
    assert difference == pytest.approx(slope, rel=0.02)


@pytest.mark.parametrize("family", [FAMILY, NOISY])
def test_chained_segments_equal_one_long_one(family):
    """If steps are random, each also keeps the seed of its number."""
    two = case(family, steps=3)
    first = two.forward()
    second = two.forward(first.state, 3)
    cotangent = cotangent_of(second.state)
    late, bar, *_ = two.backward(second.states, cotangent, WEIGHT, 3)
    early, bar, *_ = two.backward(first.states, bar, WEIGHT)
    wanted, bars, state = by_tape(two, two.state, range(6), cotangent, WEIGHT)
    assert_near(floating(second.state), floating(state))
    assert_near(late + early, wanted)
    assert_near(floating(bar), bars)


class Stopped(MatrixFactorization):
    """A family whose gradients are constants."""

    def loss_and_gradient(self, data, params, batch):
        found = super().loss_and_gradient(data, params, batch)
        return tf.nest.map_structure(tf.stop_gradient, found)


def test_without_second_derivatives_gradients_are_constants(compiled):
    without = case(FAMILY, second_derivatives=False)
    states = compiled.forward().states
    cotangent = cotangent_of(compiled.state)
    got, bar, *_ = without.backward(states, cotangent, WEIGHT)
    wanted, bars, _ = by_tape(
        case(Stopped(3, 2)), compiled.state, range(STEPS), cotangent, WEIGHT
    )
    assert_near(got, wanted)
    assert_near(floating(bar), bars)
    other, *_ = compiled.backward(states, cotangent, WEIGHT)
    assert np.linalg.norm(got - other) > 0.01 * np.linalg.norm(other)


@pytest.mark.parametrize(
    "off",
    [
        tuple(WITHOUT_TENSOR_RNN),
        ("relative_learning_rate",),
        (*WITHOUT_LENGTH, "attention"),
    ],
)
def test_ablations_equal_the_tape(off):
    config = RuleConfig(
        param_units=2, tensor_units=2, global_units=2, timescales=2,
        **dict.fromkeys(off, False),
    )  # fmt: skip
    some = case(FAMILY, steps=3, config=config, clip_step=1e6)
    segment = some.forward()
    cotangent = cotangent_of(segment.state)
    gradient, bar, *_ = some.backward(segment.states, cotangent, WEIGHT)
    wanted, bars, _ = by_tape(some, some.state, range(3), cotangent, WEIGHT)
    assert_near(gradient, wanted)
    assert_near(floating(bar), bars)


def test_average_loss_instead_of_log_loss():
    some = case(FAMILY, steps=2, log_objective=False, keep_states=False)
    segment = some.forward()
    np.testing.assert_array_equal(segment.values, segment.losses)
    assert segment.states == []


CLIP = 0.5


@pytest.fixture(scope="module")
def clipping():
    return case(FAMILY, clip_step=CLIP)


def squares(x):
    return np.sum(np.reshape(x, (-1, COUNT)) ** 2.0, axis=0)


def sensitivities(old, new, bar):
    """Those of hidden states, log step lengths and moves of theta and phi."""
    param, shared, tensors, *_ = bar.memory
    leaves = [param.h, param.eta_bar, *shared, tensors.log_step]
    total = sum(map(squares, leaves))
    total += squares(bar.theta) * squares(new.theta - old.theta)
    total += squares(bar.phi) * squares(new.phi - old.phi)
    return np.sqrt(total)


def test_clipping_by_hand(clipping):
    """Step by step on the tape, scaling the whole cotangent before each."""
    states, nothing = [clipping.state], np.zeros(COUNT, "float32")
    for n in range(STEPS):
        one = by_tape(clipping, states[-1], [n], clipping.state, nothing)
        states.append(one[2])
    bar = cotangent_of(clipping.state)
    total, largest, count = 0.0, np.zeros(COUNT), np.zeros(COUNT)
    for n in reversed(range(STEPS)):
        old, new = states[n : n + 2]
        with tf.GradientTape() as tape:
            tape.watch(floating(new))
            value, _ = clipping.unroll.value(clipping.data, new)
            value = tf.reduce_sum(WEIGHT * value)
        own = tape.gradient(value, floating(new), unconnected_gradients="zero")
        bars = [a + b for a, b in zip(floating(bar), own, strict=True)]
        norm = sensitivities(old, new, filled(bars, bar))
        factor = np.minimum(1.0, CLIP / norm)
        bar = filled([x * factor for x in bars], bar)
        assert np.all(sensitivities(old, new, bar) <= CLIP * (1 + 1e-5))
        extra, bars, _ = by_tape(clipping, old, [n], bar, nothing)
        bar = filled(bars, bar)
        total += extra
        largest = np.maximum(largest, norm)
        count += factor < 1
    assert 0 < count.sum() < STEPS * COUNT
    got = clipping.backward(
        clipping.forward().states, cotangent_of(clipping.state), WEIGHT
    )
    assert_near(got[0], total)
    assert_near(floating(got[1]), floating(bar))
    assert_near(got[2], largest)
    np.testing.assert_array_equal(got[3], count)


def test_a_step_lost_in_rounding_counts_as_one_rounding(clipping):
    state = clipping.state
    bar = tf.nest.map_structure(tf.zeros_like, state)
    bar = bar._replace(phi=tf.ones_like(state.phi))
    got = sensitivity(clipping.unroll.rule, state, state, bar)
    size = np.sqrt(len(state.phi) * squares(state.phi))
    assert np.all(got >= 0.5e-7 * size) and np.all(got <= 2e-7 * size)


def test_an_instance_that_explodes_changes_no_other(clipping):
    zeros = tf.nest.map_structure(tf.zeros_like, clipping.state)
    bars, sizes = [], []
    for rate in (1e-1, 1e3):
        lr = tf.constant([1e-3, 1e-2, rate])
        states = clipping.forward(lr=lr).states
        _, bar, largest, _ = clipping.backward(states, zeros, WEIGHT, lr=lr)
        bars.append([x[..., :2] for x in floating(bar)])
        sizes.append(largest)
    for calm, beside in zip(*bars, strict=True):
        np.testing.assert_array_equal(calm, beside)
    np.testing.assert_array_equal(sizes[0][:2], sizes[1][:2])
    assert sizes[0][2] != sizes[1][2]


def test_a_loose_clip_changes_nothing(compiled):
    loose = case(FAMILY, clip_step=1e9)
    states = compiled.forward().states
    cotangent = cotangent_of(compiled.state)
    got = loose.backward(states, cotangent, WEIGHT)
    without = case(FAMILY, clip_step=0.0).backward(states, cotangent, WEIGHT)
    for a, b in zip(
        tf.nest.flatten(got), tf.nest.flatten(without), strict=True
    ):
        np.testing.assert_array_equal(a, b)
