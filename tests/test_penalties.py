"""Penalties on step lengths: vanishing ones, and long ones when solved."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt.rule.config import RuleConfig
from tests.meta_cases import FAMILY, TINY, assert_near, by_tape, case
from training.engine import penalties
from training.engine.config import MetaConfig
from training.engine.objective import unsolved
from training.rules.hierarchical import Hierarchical
from training.rules.lstm import LSTMRule


def with_step_lengths(state, eta_bar):
    """A state with the log step lengths eta_bar [N, B]."""
    param, tensors = state.memory.param, state.memory.tensors
    own = tf.reshape(tf.constant(eta_bar), param.eta_bar.shape)
    parts = np.split(eta_bar, np.cumsum(FAMILY.sizes)[:-1])
    means = tf.constant([part.mean(0) for part in parts])
    memory = state.memory._replace(
        param=param._replace(eta_bar=own),
        tensors=tensors._replace(
            log_step=tf.reshape(means, tensors.log_step.shape),
            population=tf.constant(FAMILY.sizes, tf.float32)[:, None]
            * tf.ones_like(tensors.population),
        ),
    )
    return state._replace(memory=memory)


@pytest.fixture
def step_lengths():
    """Step lengths of a normal, a partly dead and a dead instance."""
    eta_bar = np.zeros((12, 3), "float32")
    eta_bar[:3, 1] = -10.0
    eta_bar[:, 2] = -14.0
    return eta_bar


def penalised_case(**weights):
    """A case whose objective has the terms of a run with these settings."""
    terms = penalties.terms(Hierarchical(TINY), MetaConfig(**weights))
    assert {term.name: term.weight for term in terms} == weights
    return case(FAMILY, terms=terms)


UNSOLVED = tf.constant([1.0, 1.0, 0.25])


def test_vanishing_steps_by_hand(step_lengths):
    state = with_step_lengths(case(FAMILY).state, step_lengths)
    term = penalties.VanishingStepPenalty(0.5, Hierarchical(TINY))
    penalty = term((3, 9), state, UNSOLVED)
    np.testing.assert_allclose(penalty, [0.0, 3 * 4 / 12, 8.0 * 0.25])


def test_long_steps_by_hand(step_lengths):
    state = with_step_lengths(case(FAMILY).state, step_lengths)
    term = penalties.LongStepPenalty(0.5, Hierarchical(TINY))
    # Tensors of any size have the same weight: the first has no long steps.
    penalty = term((3, 9), state, 1.0 - UNSOLVED[::-1])
    np.testing.assert_allclose(penalty, [0.25 * 4.5, (0.0 + 4.5) / 2, 0.0])


@pytest.mark.parametrize(
    "rule",
    [
        LSTMRule(),
        Hierarchical(RuleConfig(relative_learning_rate=False)),
    ],
)
def test_without_step_lengths_there_is_none(rule):
    both = MetaConfig(vanishing_step_penalty=0.2, long_step_penalty=0.1)
    assert not penalties.terms(rule, both)
    assert len(penalties.terms(Hierarchical(TINY), both)) == 2


def test_terms_are_named_as_their_settings_are():
    names = {field.name for field in dataclasses.fields(MetaConfig)}
    assert {term.name for term in penalties.TERMS} <= names
    assert not penalties.terms(Hierarchical(TINY), MetaConfig())


def test_penalty_is_part_of_the_values(step_lengths):
    plain = case(FAMILY)
    penalised = penalised_case(vanishing_step_penalty=0.5)
    state = with_step_lengths(plain.state, step_lengths)
    one, other = plain.forward(state), penalised.forward(state)
    np.testing.assert_array_equal(one.losses, other.losses)
    added = np.subtract(other.values, one.values)
    (term,) = penalised.unroll._terms
    wanted = 0.5 * term(FAMILY.sizes, one.state, tf.ones(3))
    np.testing.assert_allclose(added[-1], wanted, 1e-5, 1e-5)
    assert np.all(added[:, 2] > 1.0) and not np.any(added[:, 0])


def test_losses_far_above_zero_are_unsolved():
    loss = tf.constant([0.0, 1e-7, 1e-5, 1e-4, 7.0, np.inf, np.nan])
    weight = unsolved(loss)
    np.testing.assert_allclose(weight, [0, 0, 0.5, 1, 1, 1, 1], atol=1e-6)
    # The derivative is zero: the penalty never makes a shorter step pay.
    with tf.GradientTape() as tape:
        tape.watch(loss)
        weight = unsolved(loss)
    assert tape.gradient(weight, loss) is None


def first_solved(given, log_step_length):
    """A state whose first instance is at its minimum; all steps are alike."""
    solution = FAMILY.flatten(FAMILY.argmin(given.data))
    solved = tf.transpose(solution) * [1.0, 0.0, 0.0]
    theta = solved + given.state.theta * [0.0, 1.0, 1.0]
    state = given.state._replace(theta=theta, phi=theta)
    return with_step_lengths(state, np.full((12, 3), log_step_length, "f"))


def test_dead_steps_cost_where_a_problem_is_unsolved():
    plain = case(FAMILY)
    penalised = penalised_case(vanishing_step_penalty=0.5)
    state = first_solved(plain, -200.0)
    one, other = plain.forward(state), penalised.forward(state)
    added = np.subtract(other.values, one.values)
    assert not np.any(added[:, 0]) and np.all(added[:, 1:] > 1.0)


def test_long_steps_cost_where_a_problem_is_solved():
    plain, penalised = case(FAMILY), penalised_case(long_step_penalty=0.5)
    state = first_solved(plain, 4.0)
    # One instance does not move.
    lr = plain.lr * [0.0, 1.0, 1.0]
    one, other = plain.forward(state, lr=lr), penalised.forward(state, lr=lr)
    added = np.subtract(other.values, one.values)
    assert np.all(added[:, 0] > 10.0) and not np.any(added[:, 1:])


def test_the_dead_have_derivatives_again(step_lengths):
    step_lengths[:] = -200.0
    weight = np.ones(3, "float32")
    for given in (case(FAMILY), penalised_case(vanishing_step_penalty=0.5)):
        state = with_step_lengths(given.state, step_lengths)
        zeros = tf.nest.map_structure(tf.zeros_like, state)
        segment = given.forward(state)
        gradient, *_ = given.backward(segment.states, zeros, weight)
        wanted, *_ = by_tape(given, state, range(5), zeros, weight)
        assert_near(gradient, wanted)
        assert np.any(gradient) == bool(given.unroll._terms)
