"""Update rules that can be meta-trained, behind one small interface.

A rule is a frozen value. Its state is a nest of tensors with the B instances
somewhere inside; what `point` and `attended` return is [B, N].
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hrnn_opt import meta_parameters, rule
from hrnn_opt.config import RuleConfig
from hrnn_opt.segments import Segments


class HierarchicalState(NamedTuple):
    """State of the hierarchical RNN on B instances."""

    theta: Any  # [N, B]
    phi: Any  # [N, B]
    memory: rule.RuleState


@dataclasses.dataclass(frozen=True)
class Hierarchical:
    """The paper's rule.

    Args:
        config: its features.
    """

    config: RuleConfig = RuleConfig()

    def initial_meta(self, seed: int) -> np.ndarray:
        """Untrained meta-parameters, [M]."""
        return meta_parameters.initial_vector(self.config, seed)

    def unpack(self, meta):
        """The meta-parameters [M] as the nest that the functions here take."""
        return meta_parameters.unflatten(self.config, meta)

    def initial_state(self, meta, sizes, theta) -> HierarchicalState:
        """State before the first step from theta [B, N].

        Args:
            meta: from `unpack`.
            sizes: number of parameters of each tensor.
            theta: parameters, tensors one after another.
        """
        memory = rule.initial_state(
            self.config, meta, Segments(sizes), (theta.shape[0],)
        )
        theta = tf.transpose(theta)
        return HierarchicalState(theta, theta, memory)

    def step(self, meta, sizes, state, gradient, lr) -> HierarchicalState:
        """State after one step, with the gradient [B, N] at `attended`."""
        return HierarchicalState(
            *rule.step(
                self.config,
                meta,
                Segments(sizes),
                state.memory,
                state.theta,
                state.phi,
                tf.transpose(gradient),
                lr,
            )
        )

    def point(self, state):
        """Parameters theta that Equation 14 looks at, [B, N]."""
        return tf.transpose(state.theta)

    def attended(self, state):
        """Parameters phi at which the next gradient is taken, [B, N]."""
        return tf.transpose(state.phi)

    def step_length(self, state):
        """Mean of eta_bar, the log step length relative to lr, [B]."""
        if state.memory.param.eta_bar is None:
            return tf.zeros(state.theta.shape[-1:])
        return tf.reduce_mean(state.memory.param.eta_bar, axis=(0, 1, 2))

    def skipped(self, state):
        """Steps skipped for a gradient that was not finite, [B]."""
        return state.memory.skipped
