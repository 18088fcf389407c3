"""The optimizer of the meta-parameters: RMSProp (section 4.5) or Adam.

Pure functions of tensors: one machine calls them on its state, and a parameter
server on its variables.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from training.engine.compiled import Compiled
from training.engine.config import MetaConfig


class MetaState(NamedTuple):
    """The meta-parameters and the state of their optimizer."""

    vector: Any  # meta-parameters, [M]
    mean: Any  # mean of the gradients, [M]
    square: Any  # mean of their squares, [M]
    average: Any  # running average of the vector, [M]
    iteration: Any  # meta-iterations so far
    updates: Any  # those of them that moved the vector


def initial(vector: np.ndarray) -> MetaState:
    """The state before the first meta-iteration."""
    zeros = np.zeros_like(vector)
    return MetaState(vector, zeros, zeros.copy(), vector.copy(), 0, 0)


def rate(config: MetaConfig, iteration):
    """The meta-learning rate, which decays exponentially to `meta_rate_end`."""
    done = tf.cast(iteration, tf.float64) / config.meta_rate_decay
    done = tf.minimum(done, tf.ones_like(done))
    logs = math.log(config.meta_rate), math.log(config.meta_rate_end)
    return tf.exp((1 - done) * logs[0] + done * logs[1])


def update(config: MetaConfig, state: MetaState, gradient) -> MetaState:
    """The state after one meta-iteration.

    A gradient that is zero, or whose norm is not finite, is unusable: the
    vector and the state of its optimizer stay as they are.

    Args:
        config: settings, which choose the optimizer.
        state: vectors [M] of float32, counts of int32.
        gradient: meta-gradient, [M].
    """
    state = MetaState(*(tf.convert_to_tensor(value) for value in state))
    gradient = tf.cast(gradient, state.vector.dtype)
    norm = tf.norm(tf.cast(gradient, tf.float64))
    usable = (norm > 0) & tf.math.is_finite(norm)
    if config.clip:
        shrinking = tf.minimum(tf.ones_like(norm), config.clip / norm)
        gradient *= tf.cast(shrinking, gradient.dtype)
    step = rate(config, state.iteration)
    updates = state.updates + 1
    count = tf.cast(updates, tf.float64)
    if config.meta_optimizer == "rmsprop":
        mean = state.mean
        square = 0.9 * state.square + 0.1 * gradient**2
        move = _scaled(step, gradient) / (tf.sqrt(square) + 1e-7)
    else:
        mean = 0.9 * state.mean + 0.1 * gradient
        square = 0.999 * state.square + 0.001 * gradient**2
        root = tf.sqrt(_scaled(1 / (1 - 0.999**count), square))
        move = _scaled(step / (1 - 0.9**count), mean) / (root + 1e-8)
    vector = state.vector - move
    # The average starts like a plain mean, then becomes a decaying one.
    decay = tf.minimum(tf.cast(config.averaging, tf.float64),
                       count / (count + 10))  # fmt: skip
    average = _scaled(decay, state.average) + _scaled(1 - decay, vector)
    moved = MetaState(
        vector, mean, square, average, state.iteration + 1, updates
    )
    kept = state._replace(iteration=state.iteration + 1)
    return MetaState(
        *(tf.where(usable, a, b) for a, b in zip(moved, kept, strict=True))
    )


def _scaled(factor, array):
    """A 64-bit number times an array of lower precision."""
    return tf.cast(factor, array.dtype) * array


class Updater:
    """`update` as one traced function of NumPy values."""

    def __init__(self, config: MetaConfig):
        self._traced = Compiled(
            lambda state, gradient: update(config, state, gradient)
        )

    def __call__(self, state: MetaState, gradient) -> MetaState:
        """The state after one meta-iteration, in NumPy."""
        state = MetaState(*(tf.convert_to_tensor(value) for value in state))
        new = self._traced(state, gradient)
        *vectors, iteration, updates = (value.numpy() for value in new)
        return MetaState(*vectors, int(iteration), int(updates))
