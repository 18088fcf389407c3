"""The hierarchical RNN as a `LearnedRule`: the rule that is meta-trained."""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hrnn_opt.rule import meta_parameters, products
from hrnn_opt.rule import step as rule
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.segments import Segments
from hrnn_opt.rule.state import RuleState, initial_state


class HierarchicalState(NamedTuple):
    """State of the hierarchical RNN on B instances."""

    theta: Any  # [N, B]
    phi: Any  # [N, B]
    memory: RuleState


def _fill(record, old, new):
    """`new` for `old` in nested records: `tf.nest` takes None for a leaf."""
    if isinstance(record, tuple) and hasattr(record, "_fields"):
        return type(record)(*(_fill(value, old, new) for value in record))
    is_old = record is old or (isinstance(record, tuple) and record == old)
    return new if is_old else record


@tf.custom_gradient
def _transpose(x):
    """[B, N] to [N, B], by a product that XLA cannot fuse with what follows.

    A plain transpose, fused with the sums that its derivative ends in, takes
    as long as three of the rule's matrix products. Values that are not finite
    are kept out of the product, where they would spread to all instances; they
    make all of their own instance NaN.
    """
    one = tf.eye(x.shape[0], dtype=x.dtype)

    def back(bar):
        usable, whole = _apart(bar, 0)
        product = tf.matmul(one, usable, transpose_b=True)
        return tf.where(tf.transpose(whole), product, math.nan)

    usable, whole = _apart(x, 1)
    product = tf.matmul(usable, one, transpose_a=True)
    return tf.where(tf.transpose(whole), product, math.nan), back


def _apart(x, axis: int):
    """The finite entries, 0 elsewhere, and which instances are all finite."""
    finite = tf.math.is_finite(x)
    whole = tf.reduce_all(finite, axis, keepdims=True)
    return tf.where(finite, x, 0.0), whole


@dataclasses.dataclass(frozen=True)
class Hierarchical:
    """The paper's rule.

    Args:
        config: features of the rule.
    """

    config: RuleConfig = RuleConfig()

    def initial_meta(self, seed: int) -> np.ndarray:
        """Untrained meta-parameters, [M]."""
        return meta_parameters.initial_vector(self.config, seed)

    def unpack(self, meta):
        """The meta-parameters [M] as the nest that the functions here take."""
        return _fill(products.from_vector(self.config, meta), None, ())

    def initial_state(self, meta, sizes, theta) -> HierarchicalState:
        """State before the first step from theta [B, N].

        Args:
            meta: meta-parameters from `unpack`.
            sizes: number of parameters of each tensor.
            theta: parameters, tensors one after another.
        """
        memory = initial_state(
            self.config,
            _fill(meta, (), None),
            Segments(sizes),
            (theta.shape[0],),
        )
        theta = tf.transpose(theta)
        return HierarchicalState(theta, theta, _fill(memory, None, ()))

    def step(self, meta, sizes, state, gradient, lr) -> HierarchicalState:
        """State after one step, with the gradient [B, N] at `attended`."""
        theta, phi, memory = rule.step(
            self.config,
            _fill(meta, (), None),
            Segments(sizes),
            _fill(state.memory, (), None),
            state.theta,
            state.phi,
            _transpose(gradient),
            lr,
        )
        return HierarchicalState(theta, phi, _fill(memory, None, ()))

    def point(self, state):
        """Parameters theta, whose loss Equation 14 takes, [B, N]."""
        return tf.transpose(state.theta)

    def attended(self, state):
        """Parameters phi at which the next gradient is taken, [B, N]."""
        return tf.transpose(state.phi)

    def memory(self, state):
        """Dimensionless leaves: those of the RNNs and of the step lengths.

        Derivatives with respect to them can be compared between problems,
        unlike those with respect to parameters of any scale.
        """
        memory = state.memory
        tensors = memory.tensors
        return (
            memory.param.h,
            memory.param.eta_bar,
            memory.shared,
            tensors.log_step,
        )

    @property
    def keeps_step_lengths(self) -> bool:
        """Whether it has step lengths of its own."""
        return self.config.relative_learning_rate

    def log_step_lengths(self, state):
        """eta_bar, [N, B]."""
        eta_bar = state.memory.param.eta_bar
        return tf.reshape(eta_bar, (-1, eta_bar.shape[-1]))

    def lengthened(self, state, change):
        """The state with `change` [B] added to all log step lengths."""
        param, tensors = state.memory.param, state.memory.tensors
        memory = state.memory._replace(
            param=param._replace(eta_bar=param.eta_bar + change),
            tensors=tensors._replace(log_step=tensors.log_step + change),
        )
        return state._replace(memory=memory)
