"""What moves the meta-parameters: RMSProp (section 4.5) or Adam.

Pure functions of NumPy arrays: the vector is short, and repeats bit for bit.
"""

import math
from typing import NamedTuple

import numpy as np

from training.config import MetaConfig


class MetaState(NamedTuple):
    """The meta-parameters and what their optimizer remembers."""

    vector: np.ndarray  # meta-parameters, [M]
    mean: np.ndarray  # of the gradients, [M]
    square: np.ndarray  # mean of their squares, [M]
    average: np.ndarray  # running average of the vector, [M]
    iteration: int  # meta-iterations so far
    updates: int  # of them, those that moved the vector


def initial(vector: np.ndarray) -> MetaState:
    """The state before the first meta-iteration."""
    zeros = np.zeros_like(vector)
    return MetaState(vector, zeros, zeros.copy(), vector.copy(), 0, 0)


def rate(config: MetaConfig, iteration: int) -> float:
    """The meta-learning rate: it falls evenly in its logarithm."""
    done = min(1.0, iteration / config.meta_rate_decay)
    logs = math.log(config.meta_rate), math.log(config.meta_rate_end)
    return math.exp((1 - done) * logs[0] + done * logs[1])


def update(
    config: MetaConfig, state: MetaState, gradient: np.ndarray
) -> MetaState:
    """The state after one meta-iteration.

    A gradient of zero, or one whose norm is not finite, means that nothing was
    usable: the vector stays, and its optimizer's memory, too.
    """
    norm = float(np.linalg.norm(gradient.astype("float64")))
    if norm == 0.0 or not math.isfinite(norm):
        return state._replace(iteration=state.iteration + 1)
    if config.clip:
        gradient = gradient * min(1.0, config.clip / norm)
    step = rate(config, state.iteration)
    count = state.updates + 1
    if config.meta_optimizer == "rmsprop":
        mean = state.mean
        square = 0.9 * state.square + 0.1 * gradient**2
        move = step * gradient / (np.sqrt(square) + 1e-7)
    else:
        mean = 0.9 * state.mean + 0.1 * gradient
        square = 0.999 * state.square + 0.001 * gradient**2
        root = np.sqrt(square / (1 - 0.999**count))
        move = step * mean / (1 - 0.9**count) / (root + 1e-8)
    vector = (state.vector - move).astype(state.vector.dtype)
    # The average starts like a mean of all, until it is a decaying one.
    decay = min(config.averaging, count / (count + 10))
    average = decay * state.average + (1 - decay) * vector
    return MetaState(
        vector,
        mean.astype(vector.dtype),
        square.astype(vector.dtype),
        average.astype(vector.dtype),
        state.iteration + 1,
        count,
    )
