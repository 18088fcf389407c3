"""The coordinate-wise LSTM optimizer of Andrychowicz et al. (2016) as a rule.

"Learning to learn by gradient descent by gradient descent": every parameter has
its own LSTM of two layers, and all share its weights. The paper compares with
it in Figure 3. There is no learning rate: the output is the step.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class LSTMState(NamedTuple):
    """State of B instances; U units."""

    theta: Any  # [N, B]
    h1: Any  # outputs and cells of the two layers, [U, N, B] each
    c1: Any
    h2: Any
    c2: Any


class LSTMMeta(NamedTuple):
    """Meta-parameters; gates in the order input, forget, output, candidate."""

    kernel1: Any  # [4U, 2 + U], on the inputs and h1
    bias1: Any  # [4U]
    kernel2: Any  # [4U, 2U], on h1 and h2
    bias2: Any  # [4U]
    readout: Any  # [1, U]
    offset: Any  # [1]


def preprocess(gradient, p: float):
    """Two inputs of similar size for gradients of any size, [2, ...].

    (log|g| / p, sign g) where |g| >= exp(-p), else (-1, exp(p) g): Equation 3
    of Andrychowicz et al., appendix A.

    Args:
        gradient: a gradient of any shape.
        p: number of powers of e below 1 that are told apart.
    """
    size = tf.abs(gradient)
    large = size >= math.exp(-p)
    # The logarithm and its derivative must be finite on either branch.
    logarithm = tf.math.log(tf.where(large, size, 1.0)) / p
    first = tf.where(large, logarithm, -1.0)
    second = tf.where(large, tf.sign(gradient), math.exp(p) * gradient)
    return tf.stack([first, second])


def lstm(kernel, bias, x, h, c):
    """One step of an LSTM: its new output and cell.

        i, f, o = sigmoid(W [x, h] + b),  a = tanh(W [x, h] + b)
        c' = f c + i a,  h' = o tanh(c')

    Args:
        kernel: W of all gates, [4U, inputs + U].
        bias: b, [4U].
        x: inputs, [inputs, N, B].
        h: previous output, [U, N, B].
        c: previous cell, [U, N, B].
    """
    inputs = tf.concat([x, h], axis=0)
    flat = tf.reshape(inputs, (inputs.shape[0], -1))
    z = tf.reshape(kernel @ flat + bias[:, None], (-1, *h.shape[1:]))
    i, f, o, a = tf.split(z, 4)
    c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(a)
    return tf.sigmoid(o) * tf.tanh(c), c


@dataclasses.dataclass(frozen=True)
class LSTMRule:
    """Two layers of LSTM for every parameter.

    Args:
        units: number of units of each layer, U (20 in Andrychowicz et al.).
        p: p of `preprocess` (10 there).
        scale: scale of the output, so that first steps are short.
    """

    units: int = 20
    p: float = 10.0
    scale: float = 0.05

    def shapes(self) -> LSTMMeta:
        """Shapes of the meta-parameters, in the order of the flat vector."""
        u = self.units
        return LSTMMeta(
            (4 * u, 2 + u), (4 * u,), (4 * u, 2 * u), (4 * u,), (1, u), (1,)
        )

    def initial_meta(self, seed: int) -> np.ndarray:
        """Untrained meta-parameters, [M]: forget gates start open."""
        random, u = np.random.default_rng(seed), self.units
        parts = []
        for name, shape in self.shapes()._asdict().items():
            part = np.zeros(shape)
            if len(shape) == 2:
                part = random.normal(0, 1 / math.sqrt(shape[1]), shape)
            elif name != "offset":
                part[u : 2 * u] = 1.0
            parts.append(part.ravel())
        return np.concatenate(parts).astype("float32")

    def unpack(self, meta) -> LSTMMeta:
        """The vector [M] as the record that the functions here take."""
        shapes = self.shapes()
        parts = tf.split(meta, [math.prod(shape) for shape in shapes])
        return LSTMMeta(
            *(tf.reshape(p, s) for p, s in zip(parts, shapes, strict=True))
        )

    def initial_state(self, meta, sizes, theta) -> LSTMState:
        """State before the first step from theta [B, N]."""
        del meta, sizes
        theta = tf.transpose(theta)
        zeros = tf.zeros((self.units, *theta.shape), theta.dtype)
        return LSTMState(theta, zeros, zeros, zeros, zeros)

    def step(self, meta, sizes, state, gradient, lr) -> LSTMState:
        """State after one step, with the gradient [B, N]."""
        del sizes, lr
        x = preprocess(tf.transpose(gradient), self.p)
        h1, c1 = lstm(meta.kernel1, meta.bias1, x, state.h1, state.c1)
        h2, c2 = lstm(meta.kernel2, meta.bias2, h1, state.h2, state.c2)
        output = tf.tensordot(meta.readout[0], h2, 1) + meta.offset
        return LSTMState(state.theta + self.scale * output, h1, c1, h2, c2)

    def point(self, state):
        """Parameters, [B, N]."""
        return tf.transpose(state.theta)

    def attended(self, state):
        """The same parameters."""
        return tf.transpose(state.theta)

    def memory(self, state):
        """Dimensionless leaves: outputs and cells."""
        return tuple(state[1:])
