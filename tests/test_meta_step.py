"""One meta-iteration of one family: gradient, renewal, dropped instances."""

import numpy as np
import pytest
import tensorflow as tf

from problems.matrices import MatrixFactorization
from tests.meta_cases import TINY, Traced, assert_near, meta_vector
from training.engine import meta_step
from training.engine.config import MetaConfig
from training.engine.meta_step import MetaStep
from training.engine.objective import average_log_loss, log_loss
from training.rules.hierarchical import Hierarchical

COUNT = 4
CONFIG = MetaConfig(
    segment=3, mean_steps=6.0, clip_step=0.0, lowest_rate=1e-3, highest_rate=0.1
)
RULE = Hierarchical(TINY)
VECTOR = meta_vector(RULE)
SEED = 11
"""Seed of a meta-iteration of several segments."""


class Rough(MatrixFactorization):
    """If `rough`, derivatives of the gradient are NaN except at the start."""

    def draw(self, seed, count):
        return super().draw(seed, count) | {"rough": tf.zeros(count, bool)}

    def loss_and_gradient(self, data, params, batch):
        loss, (first, second) = super().loss_and_gradient(data, params, batch)
        u, start = params[0], data["start"][0]
        rough = data["rough"][:, None, None] & (u != start)
        root = tf.sqrt(tf.where(rough, 0.0 * u, 1.0))
        return loss, (tf.where(rough, first + root, first), second)


FAMILY = Rough(3, 2)


def made_step():
    made = MetaStep(RULE, FAMILY, COUNT, CONFIG)
    made.unroll = Traced(
        RULE, FAMILY, CONFIG.segment, CONFIG.epsilon, clip_step=0.0
    )
    return made


@pytest.fixture(scope="module")
def step():
    return made_step()


@pytest.fixture(scope="module")
def fresh(step):
    drawn = step.sampler.draw(VECTOR, 3, 10.0)
    return drawn._replace(left=tf.constant([5, 6, 7, 8]))


@pytest.fixture(scope="module")
def once(step, fresh):
    return step(VECTOR, fresh, SEED, 10.0)


@pytest.fixture(scope="module")
def carried(once):
    return once[1]


def where(mask, yes, no):
    """Selects, for each instance, the whole trajectory of one of two."""
    return tf.nest.map_structure(
        lambda a, b: tf.where(mask, a, b), yes[1:], no[1:]
    )


def by_tape(step, old, steps, weight=(1.0,) * COUNT):
    """Mean derivative of the weighted average log losses, and their values."""
    values = []
    with tf.GradientTape() as tape:
        tape.watch(VECTOR)
        meta = RULE.unpack(VECTOR)
        begun = step.sampler.begin(VECTOR, old.data)
        state = tf.nest.map_structure(
            lambda a, b: tf.where(old.age == 0, a, b), begun, old.state
        )
        for n in range(steps):
            state = step.unroll.step(meta, old.data, state, old.lr, (0, 0), n)
            value, _ = step.unroll.value(old.data, state)
            values.append(tf.constant(weight) * value)
        total = tf.reduce_sum(values) / (COUNT * steps)
    return tape.gradient(total, VECTOR), np.array(values)


def steps_of(statistics):
    return CONFIG.segment * int(statistics.segments)


def test_average_log_loss_by_hand():
    log_losses = tf.math.log(tf.constant([[1.0, 8.0], [0.5, 4.0], [0.25, 2]]))
    first = tf.math.log(tf.constant([2.0, 4.0]))
    wanted = [np.log(0.5) - np.log(2), np.log(4) - np.log(4)]
    got = average_log_loss(log_losses, first)
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_log_loss_where_a_problem_diverged():
    loss = tf.constant([np.inf, np.nan, 1e31, 9e29, 1.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(loss)
        value = log_loss(loss, 1e-10)
    most = np.log(1e30)
    wanted = [most, most, most, np.log(9e29), 0.0, np.log(1e-10)]
    np.testing.assert_allclose(value, wanted, 1e-5, 1e-6)
    slope = tape.gradient(value, loss)
    np.testing.assert_allclose(slope, [0, 0, 0, 1 / 9e29, 1, 1e10], 1e-5, 1e-40)


def test_gradient_of_fresh_instances(step, fresh, once):
    gradient, _, statistics = once
    assert statistics.segments > 1
    wanted, values = by_tape(step, fresh, steps_of(statistics))
    assert np.all(wanted != 0)
    assert_near(gradient, wanted)
    start = np.asarray(FAMILY.full_loss(fresh.data, fresh.data["start"]))
    relative = values - np.log(start + 1e-10)
    assert float(statistics.meta_loss) == pytest.approx(
        relative.mean(), abs=1e-5
    )
    assert float(statistics.final) == pytest.approx(
        relative[-1].mean(), abs=1e-5
    )
    assert float(statistics.norm) == pytest.approx(
        np.linalg.norm(wanted), rel=1e-4
    )
    assert statistics.age == 0
    assert statistics.dropped == 0 and statistics.diverged == 0


def test_initial_states_learn_from_fresh_instances_only(step, fresh, carried):
    gradient, _, statistics = step(VECTOR, carried, SEED, 10.0)
    assert not np.any(gradient[-6:]) and np.any(gradient[:-6])
    assert statistics.age == 1
    wanted, _ = by_tape(step, carried, steps_of(statistics))
    assert_near(gradient, wanted)

    mask = tf.constant([True, False, False, True])
    mixed = type(fresh)(fresh.data, *where(mask, fresh, carried))
    gradient, _, statistics = step(VECTOR, mixed, SEED, 10.0)
    wanted, _ = by_tape(step, mixed, steps_of(statistics))
    assert np.all(wanted != 0)
    assert_near(gradient, wanted)
    assert statistics.age == 0.5


SECOND = np.array([False, True, False, False])


@pytest.fixture(params=["fresh", "carried"])
def some(request):
    return request.getfixturevalue(request.param)


def assert_without_second(step, some, gradient, statistics):
    """Checks that the gradient is that of the other instances alone."""
    wanted, _ = by_tape(step, some, steps_of(statistics), (1.0, 0.0, 1.0, 1.0))
    assert_near(gradient, wanted)


@pytest.mark.parametrize("number", [np.nan, np.inf, 3e38])
def test_losses_that_are_not_finite_have_no_part(step, some, number):
    left, right = some.data["factors"]
    factors = (left, tf.where(SECOND[:, None, None], number, right))
    broken = some._replace(data=some.data | {"factors": factors})
    gradient, new, statistics = step(VECTOR, broken, SEED, 10.0)
    assert statistics.diverged == 1
    np.testing.assert_array_equal(new.left == 0, SECOND)
    assert_without_second(step, some, gradient, statistics)
    for leaf in tf.nest.flatten(new.state):
        assert np.isfinite(np.asarray(leaf)).all()


def test_derivatives_that_are_not_finite_are_dropped(step, some):
    rough = some._replace(data=some.data | {"rough": tf.constant(SECOND)})
    gradient, new, statistics = step(VECTOR, rough, SEED, 10.0)
    assert statistics.dropped == 1 and statistics.diverged == 0
    assert np.all(new.left == some.left - 1)
    assert_without_second(step, some, gradient, statistics)


def test_unfinished_instances_go_on_bit_for_bit(step, carried, once):
    assert np.all(carried.age == 1)
    np.testing.assert_array_equal(carried.left, [4, 5, 6, 7])
    before, _ = step(VECTOR, carried, SEED, 10.0)[1:]
    done = carried._replace(left=tf.constant([0, 5, 6, -1]))
    after, statistics = step(VECTOR, done, SEED, 10.0)[1:]
    assert statistics.age == 0.5
    np.testing.assert_array_equal(after.age, [1, 2, 2, 1])
    np.testing.assert_array_equal(after.left[1:3], [4, 5])
    assert min(after.left[0], after.left[3]) >= 0
    for a, b in zip(
        (*before.data["factors"], before.lr, before.first),
        (*after.data["factors"], after.lr, after.first),
        strict=True,
    ):
        np.testing.assert_array_equal(a[1:3], b[1:3])
        assert np.all(a[0] != b[0]) and np.all(a[3] != b[3])
    for a, b in zip(
        tf.nest.flatten(before.state), tf.nest.flatten(after.state), strict=True
    ):
        np.testing.assert_array_equal(a[..., 1:3], b[..., 1:3])
    assert np.all(before.state.theta[:, 0] != after.state.theta[:, 0])


def test_the_renewed_start_afresh(step, carried):
    done = carried._replace(left=tf.constant([0, 5, 6, 7]))
    new = step.sampler.renew(done, VECTOR, 9, 10.0)
    begun = step.sampler.begin(VECTOR, new.data)
    loss = np.asarray(FAMILY.full_loss(new.data, new.data["start"]))
    for a, b in zip(
        tf.nest.flatten(new.state), tf.nest.flatten(begun), strict=True
    ):
        np.testing.assert_array_equal(a[..., 0], b[..., 0])
    assert float(new.first[0]) == pytest.approx(np.log(loss[0]), abs=1e-5)
    assert new.age[0] == 0 and new.left[0] >= 1
    assert np.all(carried.state.theta[:, 1:] == new.state.theta[:, 1:])
    assert step.sampler.renew(carried, VECTOR, 9, 10.0) is carried


def test_diverged_instances_are_given_up(step, carried):
    first = carried.first - tf.constant([0.0, 0.0, 60.0, 0.0])
    low = carried._replace(first=first)
    _, new, statistics = step(VECTOR, low, SEED, 10.0)
    assert statistics.diverged == 1 and statistics.dropped == 0
    np.testing.assert_array_equal(new.left, [3, 4, 0, 6])


def same(one, other):
    pairs = zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)


def test_the_same_arguments_give_the_same_results(step, fresh, once):
    same(once, step(VECTOR, fresh, SEED, 10.0))
    assert step(VECTOR, fresh, SEED + 5, 10.0)[2] != once[2]


def test_states_that_are_computed_again(fresh, once, monkeypatch):
    """Room for one segment is the minimum."""
    monkeypatch.setattr(meta_step, "STORED_BYTES", 0)
    assert once[2].segments > 1
    same(once, made_step()(VECTOR, fresh, SEED, 10.0))
