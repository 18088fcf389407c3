"""Small cases of meta-training, and derivatives through plain loops."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hrnn_opt.rule.config import RuleConfig
from problems import draws
from problems.matrices import MatrixFactorization
from training.engine.compiled import Compiled
from training.engine.unroll import Unroll
from training.rules.hierarchical import Hierarchical

TINY = RuleConfig(param_units=2, tensor_units=2, global_units=2, timescales=2)
FAMILY = MatrixFactorization(3, 2)
STEPS, COUNT = 5, 3


class Traced(Unroll):
    """The same without XLA, whose compilation takes seconds."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.forward = Compiled(self._forward)
        self.backward = Compiled(self._backward)


class Case(NamedTuple):
    unroll: Unroll
    vector: Any
    data: Any
    state: Any
    lr: Any
    seed: Any

    def forward(self, state=None, first=0, **changes):
        new = self._replace(**changes)
        return new.unroll.forward(
            new.vector, new.data, state or new.state, new.lr, new.seed,
            tf.constant(first),
        )  # fmt: skip

    def backward(
        self, states, cotangent, weight, first=0, shares=None, **changes
    ):
        new = self._replace(**changes)
        if shares is None:
            shares = np.ones(new.unroll.steps)
        return new.unroll.backward(
            new.vector, new.data, states, new.lr, new.seed,
            tf.constant(first), cotangent, tf.constant(weight, tf.float32),
            tf.constant(shares, tf.float32),
        )  # fmt: skip


def meta_vector(rule, seed=0):
    """Noisy meta-parameters; untrained ones have derivatives of zero."""
    vector = rule.initial_meta(seed)
    noise = np.random.default_rng(seed).normal(0, 0.2, vector.shape)
    return tf.constant(vector + noise, tf.float32)


def case(family, kind=Traced, steps=STEPS, config=TINY, **settings):
    rule = Hierarchical(config)
    problem = family.instances(1, COUNT)
    vector = meta_vector(rule)
    theta = family.flatten(problem.start)
    return Case(
        kind(rule, family, steps, **settings),
        vector,
        problem.data,
        rule.initial_state(rule.unpack(vector), family.sizes, theta),
        tf.constant([1e-3, 1e-2, 1e-1]),
        draws.as_seed(7),
    )


def floating(state):
    return [x for x in tf.nest.flatten(state) if x.dtype.is_floating]


def cotangent_of(state, scale=0.1):
    random = np.random.default_rng(5)
    return tf.nest.map_structure(
        lambda x: tf.cast(scale * random.normal(size=x.shape), x.dtype), state
    )


def by_tape(case, state, numbers, cotangent, weight):
    """Derivatives through a Python loop over `Unroll.step`.

    Returns:
        The derivatives with respect to the meta-parameters and to the state's
        floating leaves, and the new state.
    """
    unroll = case.unroll
    # Distinct tensors: theta and phi start as the same one.
    state = tf.nest.map_structure(tf.identity, state)
    leaves, total = floating(state), 0.0
    with tf.GradientTape() as tape:
        tape.watch((case.vector, leaves))
        meta = unroll.rule.unpack(case.vector)
        for n in numbers:
            state = unroll.step(meta, case.data, state, case.lr, case.seed, n)
            value, _ = unroll.value(case.data, state)
            total += tf.reduce_sum(weight * value)
        for x, bar in zip(floating(state), floating(cotangent), strict=True):
            total += tf.reduce_sum(x * bar)
    gradient, bars = tape.gradient(
        total, (case.vector, leaves), unconnected_gradients="zero"
    )
    return gradient, bars, state


def assert_near(got, wanted, share=1e-4):
    """Compares each array to within a share of its largest entry.

    float32 sums in another order differ by about 1e-6, and a few steps
    multiply that.
    """
    for a, b in zip(tf.nest.flatten(got), tf.nest.flatten(wanted), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape and np.isfinite(b).all()
        assert np.max(np.abs(a - b)) <= share * np.max(np.abs(b)) + 1e-12


def filled(leaves, like):
    """The state `like` with its floating leaves replaced."""
    left = iter(leaves)
    return tf.nest.map_structure(
        lambda x: next(left) if x.dtype.is_floating else x, like
    )
