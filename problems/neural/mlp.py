"""Multi-layer perceptrons that classify or regress."""

import dataclasses

import tensorflow as tf

from problems import draws
from problems.convex import cross_entropy
from problems.minibatch import DataSet, data_set
from problems.neural import layers


@dataclasses.dataclass(frozen=True)
class MLP(DataSet):
    """An MLP on clusters of points, or on the outputs of another such MLP.

    Args:
        widths: inputs, hidden units of each layer, outputs.
        activation: a key of `layers.ACTIVATIONS`.
        normalized: whether hidden layers have layer normalization.
        regression: whether it learns a random network's outputs, with noise,
            by squared error; otherwise it classifies clusters. The
            noise, from 0.1 to 1, is drawn for each instance.
        sparse: whether inputs are zero at times: each feature with a frequency
            of its own, one feature in six always.
        rows: number of rows of each data set.
    """

    widths: tuple = (8, 16, 4)
    activation: str = "relu"
    normalized: bool = False
    regression: bool = False
    sparse: bool = False
    rows: int = 128

    minimum = None

    def __post_init__(self):
        layers.check_activation(self.activation)

    @property
    def name(self):
        """The name, with what differs from a plain classifier."""
        parts = ["mlp", self.activation]
        parts += ["regression"] * self.regression
        parts += ["normalized"] * self.normalized
        parts += ["sparse"] * self.sparse
        return "_".join(parts)

    @property
    def shapes(self):
        """Weights and biases, and gain and shift of a normalized layer."""
        shapes, hidden = [], len(self.widths) - 2
        for k, (inputs, units) in enumerate(
            zip(self.widths[:-1], self.widths[1:], strict=True)
        ):
            shapes += layers.dense_shapes(inputs, units)
            if self.normalized and k < hidden:
                shapes += [(units,), (units,)]
        return tuple(shapes)

    def draw(self, seed, count):
        """Data, minibatch sizes and initial weights."""
        points, teacher, noise, start, zeros, rest = draws.split(seed, 6)
        inputs, outputs = self.widths[0], self.widths[-1]
        if self.regression:
            x = draws.normal(points, (count, self.rows, inputs))
            y = self._outputs(layers.weights(teacher, count, self.shapes), x)
            spread, noise = draws.split(noise, 2)
            sd = draws.log_uniform(spread, (count, 1, 1), 0.1, 1.0)
            y += sd * draws.normal(noise, y.shape)
        else:
            x, y = layers.clusters(points, count, self.rows, outputs, (inputs,))
        if self.sparse:
            x *= layers.presence(zeros, x.shape)
        start = layers.weights(start, count, self.shapes)
        return data_set(rest, x, y, start)

    def losses(self, params, x, y):
        """Losses of every row, [B, rows]."""
        outputs = self._outputs(params, x)
        if self.regression:
            return tf.reduce_mean((outputs - y) ** 2, axis=-1)
        return cross_entropy(outputs, y)

    def _outputs(self, params, x):
        """Outputs of the network. Gains are stored minus 1."""
        activation = layers.ACTIVATIONS[self.activation]
        tensors = iter(params)
        for _ in range(len(self.widths) - 2):
            x = layers.dense(x, next(tensors), next(tensors))
            if self.normalized:
                x = layers.layer_norm(x, 1.0 + next(tensors), next(tensors))
            x = activation(x)
        return layers.dense(x, next(tensors), next(tensors))
