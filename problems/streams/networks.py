"""Networks that serve as student and as teacher: B of them side by side.

A network is a frozen value with `shapes`, `inputs` (the number of features of a
row), `outputs`, `initial(seed, count)` and a call (params, x, weights) to the
outputs [B, rows, outputs]. The weights [B, rows] sum to one over the rows of a
minibatch: batch normalization averages with them. The last two tensors are
weights and biases of the output layer. Gains are stored minus 1.
"""

import dataclasses
import math

import tensorflow as tf

from problems import draws
from problems.neural import layers
from problems.neural.convnet import convolution

NORMS = ("none", "layer", "batch", "group")


def initial(seed, count: int, shapes) -> tuple:
    """Normal weights of variance scale^2 / fan-in, and zeros for vectors.

    The scale, one for each instance, is log-uniform from 0.7 to 1.5: sqrt(2)
    preserves the size of activations in a ReLU layer, 1 in a linear one.
    """
    scale, *seeds = draws.split(seed, 1 + len(shapes))
    scale = draws.log_uniform(scale, (count,), 0.7, 1.5)
    tensors = []
    for one, shape in zip(seeds, shapes, strict=True):
        if len(shape) == 1:
            tensors.append(tf.zeros((count, *shape)))
            continue
        deviation = scale / math.sqrt(math.prod(shape[:-1]))
        deviation = tf.reshape(deviation, (count,) + (1,) * len(shape))
        tensors.append(deviation * draws.normal(one, (count, *shape)))
    return tuple(tensors)


def check_norm(norm: str):
    """Raises ValueError if there is no such normalization."""
    if norm not in NORMS:
        raise ValueError(
            f"Argument `norm` must be one of {NORMS}. Received: norm={norm!r}"
        )


def normalized(x, weights, norm: str, tensors):
    """x [B, rows, ..., C], normalized, with gain and shift from `tensors`.

    Args:
        x: activations.
        weights: weights of the rows, for "batch".
        norm: one of `NORMS`; "none" takes no tensors, "group" has two groups.
        tensors: iterator over the parameters.
    """
    if norm == "none":
        return x
    gain, shift = 1.0 + next(tensors), next(tensors)
    inner = tuple(range(2, len(x.shape)))
    if norm == "batch":
        row = tf.reshape(weights, (*weights.shape, *(1 for _ in inner)))

        def mean(x):
            x = tf.reduce_sum(row * x, axis=1, keepdims=True)
            return tf.reduce_mean(x, axis=inner[:-1], keepdims=True)

    elif norm == "layer":

        def mean(x):
            return tf.reduce_mean(x, axis=-1, keepdims=True)

    else:
        halves = (*x.shape[:-1], 2, x.shape[-1] // 2)

        def mean(x):
            axes = (*inner[:-1], len(x.shape))
            grouped = tf.reshape(x, halves)
            grouped = tf.reduce_mean(grouped, axis=axes, keepdims=True)
            ones = tf.ones((*(1 for _ in x.shape[:-1]), 1, halves[-1]))
            wide = grouped * ones
            return tf.reshape(wide, (*wide.shape[:-2], x.shape[-1]))

    centred = x - mean(x)
    normal = centred * tf.math.rsqrt(mean(centred**2) + 1e-3)
    each = (slice(None), *(None for _ in x.shape[1:-1]), slice(None))
    return normal * gain[each] + shift[each]


ACTIVATIONS = {**layers.ACTIVATIONS, "sine": tf.sin, "linear": tf.identity}


def check_activation(name: str):
    """Raises ValueError if there is no such activation."""
    if name not in ACTIVATIONS:
        raise ValueError(
            f"Argument `activation` must be one of {sorted(ACTIVATIONS)}. "
            f"Received: activation={name!r}"
        )


@dataclasses.dataclass(frozen=True)
class Dense:
    """Dense layers; without hidden ones, a linear model.

    Args:
        widths: inputs, hidden units of each layer, outputs.
        activation: activation of hidden layers. With "sine" the first layer's
            initial weights are 15 times as large (Sitzmann et al., 2020, use
            30).
        norm: normalization of hidden layers, before the activation: "none",
            "layer", "batch".
        residual: whether hidden layers after the first add to their input.
    """

    widths: tuple
    activation: str = "relu"
    norm: str = "none"
    residual: bool = False

    def __post_init__(self):
        check_activation(self.activation)
        check_norm(self.norm)

    @property
    def name(self) -> str:
        """The name, with what differs from a plain network."""
        parts = ["dense", *(str(width) for width in self.widths)]
        if len(self.widths) > 2:
            parts.append(self.activation)
        parts += [self.norm] * (self.norm != "none")
        parts += ["residual"] * self.residual
        return "_".join(parts)

    @property
    def inputs(self) -> int:
        """Number of features of a row."""
        return self.widths[0]

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return self.widths[-1]

    @property
    def shapes(self) -> tuple:
        """Weights and biases, gain and shift of a normalized layer."""
        shapes = []
        pairs = zip(self.widths[:-1], self.widths[1:], strict=True)
        for k, (inputs, units) in enumerate(pairs):
            shapes += layers.dense_shapes(inputs, units)
            if self.norm != "none" and k < len(self.widths) - 2:
                shapes += [(units,), (units,)]
        return tuple(shapes)

    def initial(self, seed, count: int) -> tuple:
        """Initial parameters of `count` networks."""
        first, *others = initial(seed, count, self.shapes)
        if self.activation == "sine":
            first *= 15.0
        return (first, *others)

    def __call__(self, params, x, weights):
        """Outputs [B, rows, outputs] of inputs [B, rows, inputs]."""
        activation = ACTIVATIONS[self.activation]
        tensors = iter(params)
        for k in range(len(self.widths) - 2):
            y = layers.dense(x, next(tensors), next(tensors))
            y = activation(normalized(y, weights, self.norm, tensors))
            x = x + y if self.residual and k else y
        return layers.dense(x, next(tensors), next(tensors))


@dataclasses.dataclass(frozen=True)
class Convolutional:
    """Padded 3 x 3 convolutions, the mean over the picture, a dense layer.

    Args:
        filters: number of filters of each convolution; every second one has
            stride 2 until the picture has 2 x 2 points.
        outputs: number of outputs of the dense layer.
        side: side of the square pictures.
        channels: number of channels of the pictures.
        norm: normalization after each convolution: "none", "batch" or "group".
        residual: whether convolutions after the first add to their input; all
            then have equally many filters, and those after the first stride 1.
    """

    filters: tuple
    outputs: int
    side: int = 8
    channels: int = 1
    norm: str = "none"
    residual: bool = False

    def __post_init__(self):
        check_norm(self.norm)

    @property
    def name(self) -> str:
        """The name, with what differs from a plain network."""
        parts = ["convolutional", str(len(self.filters))]
        parts += [self.norm] * (self.norm != "none")
        parts += ["residual"] * self.residual
        return "_".join(parts)

    @property
    def inputs(self) -> int:
        """Number of points of a picture."""
        return self.side**2 * self.channels

    @property
    def shapes(self) -> tuple:
        """Kernels, biases (or gain and shift), the dense layer."""
        shapes, before = [], self.channels
        for filters in self.filters:
            shapes += [(3, 3, before, filters), (filters,)]
            shapes += [(filters,)] * (self.norm != "none")
            before = filters
        return (*shapes, *layers.dense_shapes(before, self.outputs))

    def initial(self, seed, count: int) -> tuple:
        """Initial parameters of `count` networks."""
        return initial(seed, count, self.shapes)

    def __call__(self, params, x, weights):
        """Outputs [B, rows, outputs] of pictures [B, rows, inputs]."""
        shape = (*x.shape[:2], self.side, self.side, self.channels)
        x, tensors = tf.reshape(x, shape), iter(params)
        none = tf.zeros((x.shape[0], 1))
        for k in range(len(self.filters)):
            stride = 2 if k % 2 == 0 and x.shape[2] > 2 else 1
            stride = 1 if self.residual and k else stride
            kernel = next(tensors)
            bias = next(tensors) if self.norm == "none" else none
            y = tf.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
            y = convolution(y, kernel, bias, stride)
            y = tf.nn.relu(normalized(y, weights, self.norm, tensors))
            x = x + y if self.residual and k else y
        x = tf.reduce_mean(x, axis=(2, 3))
        return layers.dense(x, next(tensors), next(tensors))
