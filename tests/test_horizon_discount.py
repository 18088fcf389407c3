"""Against short-horizon bias: last steps count less; instances grow old."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.meta_cases import (
    FAMILY,
    TINY,
    Traced,
    assert_near,
    by_tape,
    case,
    meta_vector,
)
from training.engine import lengths
from training.engine.config import MetaConfig
from training.engine.meta_step import MetaStep
from training.rules.hierarchical import Hierarchical

COUNT, SEED = 4, 11
WEIGHT = np.ones(3, "float32")
RULE = Hierarchical(TINY)
VECTOR = meta_vector(RULE)


def test_a_step_without_a_share_is_as_if_its_numbers_were_constants():
    """Its state's derivative stays, since earlier steps act through it."""
    given = case(FAMILY, steps=2)
    segment = given.forward()
    zeros = tf.nest.map_structure(tf.zeros_like, given.state)
    both, bar, *_ = given.backward(segment.states, zeros, WEIGHT)
    first, same, *_ = given.backward(
        segment.states, zeros, WEIGHT, shares=[1.0, 0.0]
    )
    last, *_ = given.backward(segment.states, zeros, WEIGHT, shares=[0.0, 1.0])
    assert_near(first + last, both)
    assert_near(tf.nest.flatten(same), tf.nest.flatten(bar))
    # The last step's own derivative, from the state after the first one.
    one = given.forward().states
    middle = tf.nest.pack_sequence_as(given.state, [leaf[1] for leaf in one])
    wanted, *_ = by_tape(given, middle, range(1, 2), zeros, WEIGHT)
    assert_near(last, wanted)


@functools.cache
def made(**settings):
    """A meta-step, traced once; it holds no state."""
    config = MetaConfig(
        segment=3, mean_steps=6.0, clip_step=0.0, lowest_rate=1e-3,
        highest_rate=0.1, **settings,
    )  # fmt: skip
    step = MetaStep(RULE, FAMILY, COUNT, config)
    step.unroll = Traced(RULE, FAMILY, 3, config.epsilon)
    return step


@pytest.mark.slow
def test_foresight_weighs_the_steps_of_the_whole_unroll():
    step = made(horizon_discount=1.0)
    fresh = step.sampler.draw(VECTOR, 3, 10.0)
    gradient, _, statistics = step(VECTOR, fresh, SEED, 10.0)
    plain, _, _ = made()(VECTOR, fresh, SEED, 10.0)
    segments = int(statistics.segments)
    assert segments > 1
    # The same from the derivatives of each step alone.
    total = 0.0
    for n in range(3 * segments):
        share = np.zeros((segments, 3), "float32")
        share[n // 3, n % 3] = lengths.shares(n, 3 * segments, 1.0)
        total += alone(step, fresh, statistics, share)
    start = plain - sum(
        alone(step, fresh, statistics, np.eye(1, 3 * segments, n))
        for n in range(3 * segments)
    )
    assert_near(gradient, total + start, 1e-3)


def alone(step, fresh, statistics, shares):
    """The meta-gradient for given shares, without the initial state's part."""
    segments = int(statistics.segments)
    shares = np.reshape(shares, (segments, 3)).astype("float32")
    *_, seed = step._plan(tf.constant([0, SEED]))
    state, kept = fresh.state, []
    for k in range(segments):
        segment = step.unroll.forward(
            VECTOR, fresh.data, state, fresh.lr, seed, tf.constant(3 * k)
        )
        kept.append(segment.states)
        state = segment.state
    bar = tf.nest.map_structure(tf.zeros_like, state)
    gradient = 0.0
    for k in reversed(range(segments)):
        extra, bar, *_ = step.unroll.backward(
            VECTOR, fresh.data, kept[k], fresh.lr, seed, tf.constant(3 * k),
            bar, tf.ones(COUNT), tf.constant(shares[k]),
        )  # fmt: skip
        gradient += extra
    return gradient / (COUNT * 3 * segments)


@pytest.mark.slow
def test_growing_old_between_unrolls():
    """The gradient is the same; the state is that after more steps."""
    ageing, plain = made(mean_between=30.0), made()
    fresh = ageing.sampler.draw(VECTOR, 3, 10.0)
    gradient, old, statistics = ageing(VECTOR, fresh, SEED, 10.0)
    wanted, new, _ = plain(VECTOR, fresh, SEED, 10.0)
    between, segments = int(statistics.between), int(statistics.segments)
    assert between > 1
    np.testing.assert_array_equal(gradient, wanted)
    *_, seed = plain._plan(tf.constant([0, SEED]))
    state = new.state
    for k in range(between):
        state = plain.unroll.forward(
            VECTOR, fresh.data, state, fresh.lr, seed,
            tf.constant(3 * (segments + k)),
        ).state  # fmt: skip
    for a, b in zip(
        tf.nest.flatten(old.state), tf.nest.flatten(state), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(old.left, new.left)
    np.testing.assert_array_equal(old.age, new.age)


def test_disturbed_instances_have_other_step_lengths():
    """All lengths of an instance have the same factor; fresh ones have none."""
    step = made(step_length_perturbation=1.0)
    old = step.sampler.draw(VECTOR, 3, 10.0)
    old = old._replace(age=tf.constant([1, 0, 2, 3]))
    new = step.sampler.perturb(old, tf.constant([0, 7]))
    before, after = (x.state.memory.param.eta_bar.numpy() for x in (old, new))
    change = (after - before).reshape(-1, COUNT)
    np.testing.assert_allclose(change, change[:1].repeat(len(change), 0))
    assert change[0, 1] == 0
    assert np.all(np.delete(change[0], 1))
    assert change.min() >= -6 and change.max() <= 1
    same = new.state.memory.param._replace(
        eta_bar=old.state.memory.param.eta_bar
    )
    for a, b in zip(same, old.state.memory.param, strict=True):
        np.testing.assert_array_equal(a, b)


def test_as_many_are_disturbed_as_asked():
    drawn = made().sampler.draw(VECTOR, 3, 10.0)
    old = drawn._replace(age=tf.ones(COUNT, tf.int32))
    assert made().sampler.perturb(old, tf.constant([0, 7])) is old
    sampler, changed = made(step_length_perturbation=0.25).sampler, 0
    for n in range(200):
        new = sampler.perturb(old, tf.constant([1, n]))
        eta_bar = new.state.memory.param.eta_bar[0, 0, 0]
        changed += np.count_nonzero(eta_bar)
    # Standard deviation of the count of 800: 12.
    assert abs(changed - 200) < 60
