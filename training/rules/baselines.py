"""Adam, RMSProp and gradient descent as rules, many settings side by side."""

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf


class BaselineState(NamedTuple):
    """State of B instances."""

    theta: Any  # [N, B]
    mean: Any  # mean of gradients, [N, B]
    square: Any  # mean of their squares, [N, B]
    steps: Any  # number of steps so far, [B]


@dataclasses.dataclass(frozen=True)
class Baselines:
    """Adam or RMSProp for each instance, with Keras's default settings.

    Learning rates are those of the trajectories. There are no meta-parameters.

    Args:
        adam: for each instance, True for Adam and False for RMSProp.
    """

    adam: tuple

    def unpack(self, meta):
        """There is nothing to unpack."""
        del meta
        return ()

    def initial_state(self, meta, sizes, theta) -> BaselineState:
        """State before the first step from theta [B, N]."""
        del meta, sizes
        theta = tf.transpose(theta)
        zeros = tf.zeros_like(theta)
        return BaselineState(theta, zeros, zeros, tf.zeros(theta.shape[-1:]))

    def step(self, meta, sizes, state, gradient, lr) -> BaselineState:
        """State after one step, with the gradient [B, N]."""
        del meta, sizes
        adam = tf.constant(self.adam)
        g = tf.transpose(gradient)
        steps = state.steps + 1.0
        keep_mean = tf.where(adam, 0.9, 0.0)
        keep_square = tf.where(adam, 0.999, 0.9)
        mean = keep_mean * state.mean + (1.0 - keep_mean) * g
        square = keep_square * state.square + (1.0 - keep_square) * g**2
        # Keras's Adam corrects the bias of the averages, its RMSProp does not.
        # Their epsilons of 1e-7 are outside and inside the root.
        correction = tf.where(
            adam,
            tf.sqrt(1.0 - 0.999**steps) / (1.0 - 0.9**steps),
            1.0,
        )
        root = tf.where(adam, tf.sqrt(square) + 1e-7, tf.sqrt(square + 1e-7))
        theta = state.theta - lr * correction * mean / root
        return BaselineState(theta, mean, square, steps)

    def point(self, state):
        """Parameters, [B, N]."""
        return tf.transpose(state.theta)

    def attended(self, state):
        """The same parameters."""
        return tf.transpose(state.theta)


@dataclasses.dataclass(frozen=True)
class GradientDescent(Baselines):
    """theta - lr g, at the learning rates of the trajectories."""

    adam: tuple = ()

    def step(self, meta, sizes, state, gradient, lr) -> BaselineState:
        """State after one step, with the gradient [B, N]."""
        del meta, sizes
        theta = state.theta - lr * tf.transpose(gradient)
        return state._replace(theta=theta, steps=state.steps + 1.0)
