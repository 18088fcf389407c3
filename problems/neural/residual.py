"""A small residual network with batch normalization."""

import dataclasses

import tensorflow as tf

from problems.convex import cross_entropy
from problems.neural import layers
from problems.neural.convnet import ConvNet, convolution


@dataclasses.dataclass(frozen=True)
class Residual(ConvNet):
    """Residual blocks of two normalized convolutions each, on noisy templates.

    The blocks' order is normalization, ReLU, convolution ("full
    pre-activation"; He et al., 2016, as in ResNet V2). Statistics are those of
    the minibatch, and for the full loss those of all pictures.

    Args:
        filters: number of filters of all convolutions; all but the first, which
            has stride 2, are padded.
        blocks: number of blocks.
    """

    filters: int = 7
    blocks: int = 2
    name: str = "residual"

    def __post_init__(self):
        layers.check_activation(self.activation)

    @property
    def shapes(self):
        """First convolution; gain, shift, kernel twice a block; last layers."""
        kernel = (3, 3, self.filters, self.filters)
        normal = ((self.filters,), (self.filters,))
        return (
            ((3, 3, 1, self.filters),)
            + (*normal, kernel) * (2 * self.blocks)
            + normal
            + layers.dense_shapes(self.filters, self.classes)
        )

    def full_loss(self, data, params):
        """Mean over all pictures, [B]."""
        x, y = data["x"], data["y"]
        weights = tf.fill(y.shape, 1.0 / self.rows)
        return self._mean(params, x, y, weights)

    def loss(self, data, params, batch):
        """Mean over the minibatch, [B]."""
        return self._mean(params, *self.rows_of(data, batch), batch["weights"])

    def _mean(self, params, x, y, weights):
        """Mean loss with weights [B, rows]. Gains are stored minus 1."""
        tensors = iter(params)
        activation = layers.ACTIVATIONS[self.activation]
        none = tf.zeros((x.shape[0], self.filters))

        def normalized(x):
            gain, shift = 1.0 + next(tensors), next(tensors)
            return activation(layers.batch_norm(x, weights, gain, shift))

        x = convolution(x, next(tensors), none, stride=2)
        for _ in range(self.blocks):
            branch = x
            for _ in range(2):
                branch = tf.pad(
                    normalized(branch), ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0))
                )
                branch = convolution(branch, next(tensors), none, stride=1)
            x += branch
        x = tf.reduce_mean(normalized(x), axis=(2, 3))
        logits = layers.dense(x, next(tensors), next(tensors))
        return tf.reduce_sum(weights * cross_entropy(logits, y), -1)
