"""A small convolutional network."""

import dataclasses

import tensorflow as tf

from problems import draws
from problems.convex import cross_entropy
from problems.minibatch import DataSet, data_set
from problems.neural import layers


def convolution(x, w, b, stride: int):
    """No padding: x [B, rows, H, W, C], w [B, k, k, C, F], b [B, F]."""
    count, size, filters = w.shape[0], w.shape[1], w.shape[-1]
    height = (x.shape[2] - size) // stride + 1
    width = (x.shape[3] - size) // stride + 1
    shifted = [
        x[
            :,
            :,
            i : i + stride * (height - 1) + 1 : stride,
            j : j + stride * (width - 1) + 1 : stride,
        ]
        for i in range(size)
        for j in range(size)
    ]
    patches = tf.concat(shifted, axis=-1)
    flat = tf.reshape(patches, (count, -1, patches.shape[-1]))
    result = layers.dense(flat, tf.reshape(w, (count, -1, filters)), b)
    return tf.reshape(result, (count, x.shape[1], height, width, filters))


@dataclasses.dataclass(frozen=True)
class ConvNet(DataSet):
    """Two convolutions and a dense layer, on noisy templates.

    Args:
        filters: numbers of filters of the two 3 x 3 convolutions; the first has
            stride 2.
        classes: number of templates.
        rows: number of rows of each data set.
        side: side of the square pictures, in pixels.
        activation: a key of `layers.ACTIVATIONS`.
    """

    filters: tuple = (4, 8)
    classes: int = 4
    rows: int = 64
    name: str = "convnet"
    side: int = 8
    activation: str = "relu"

    minimum = None

    def __post_init__(self):
        layers.check_activation(self.activation)

    @property
    def shapes(self):
        """Weights and biases of three layers."""
        first, second = self.filters
        return (
            ((3, 3, 1, first), (first,))
            + ((3, 3, first, second), (second,))
            + layers.dense_shapes(second, self.classes)
        )

    def draw(self, seed, count):
        """Pictures, labels, minibatch sizes and initial weights."""
        pictures, start, rest = draws.split(seed, 3)
        x, y = layers.clusters(
            pictures, count, self.rows, self.classes, (self.side, self.side, 1)
        )
        start = layers.weights(start, count, self.shapes)
        return data_set(rest, x, y, start)

    def losses(self, params, x, y):
        """Losses of every picture, [B, rows]."""
        w1, b1, w2, b2, w3, b3 = params
        activation = layers.ACTIVATIONS[self.activation]
        x = activation(convolution(x, w1, b1, stride=2))
        x = activation(convolution(x, w2, b2, stride=1))
        x = tf.reduce_mean(x, axis=(2, 3))
        return cross_entropy(layers.dense(x, w3, b3), y)
