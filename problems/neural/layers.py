"""Layers of B networks side by side, and their initial weights."""

import math

import tensorflow as tf

from problems import draws

ACTIVATIONS = {
    "sigmoid": tf.sigmoid,
    "tanh": tf.tanh,
    "relu": tf.nn.relu,
    "gelu": tf.nn.gelu,
}


def check_activation(name: str):
    """Raises ValueError if there is no such activation."""
    if name not in ACTIVATIONS:
        raise ValueError(
            f"Argument `activation` must be one of {sorted(ACTIVATIONS)}. "
            f"Received: activation={name!r}"
        )


def dense_shapes(inputs: int, units: int) -> tuple:
    """Shapes of weights and biases."""
    return ((inputs, units), (units,))


def dense(x, w, b):
    """x [B, rows, inputs] times w [B, inputs, units] plus b [B, units]."""
    return x @ w + b[:, None, :]


def layer_norm(x, gain, shift):
    """x normalised over the last axis, times gain [B, units], plus shift."""
    mean = tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean((x - mean) ** 2, axis=-1, keepdims=True)
    normal = (x - mean) * tf.math.rsqrt(variance + 1e-3)
    return normal * gain[:, None, :] + shift[:, None, :]


def batch_norm(x, weights, gain, shift):
    """x [B, rows, H, W, C] normalised over all but instances and channels.

    The rows' `weights` [B, rows] sum to 1, and are 0 outside of a batch.
    """

    def mean(x):
        x = tf.reduce_mean(x, axis=(2, 3), keepdims=True)
        share = weights[:, :, None, None, None]
        return tf.reduce_sum(share * x, axis=1, keepdims=True)

    centred = x - mean(x)
    normal = centred * tf.math.rsqrt(mean(centred**2) + 1e-3)
    each = (slice(None), None, None, None)
    return normal * gain[each] + shift[each]


def weights(seed, count: int, shapes) -> tuple:
    """Normal weights of variance 1 / fan-in, and zeros for vectors.

    The standard deviation is multiplied by a number from 1/2 to 2, one for
    each instance.
    """
    scale, *seeds = draws.split(seed, 1 + len(shapes))
    scale = draws.log_uniform(scale, (count,), 0.5, 2.0)
    tensors = []
    for one, shape in zip(seeds, shapes, strict=True):
        if len(shape) == 1:
            tensors.append(tf.zeros((count, *shape)))
            continue
        sd = scale / math.sqrt(math.prod(shape[:-1]))
        sd = tf.reshape(sd, (count,) + (1,) * len(shape))
        tensors.append(sd * draws.normal(one, (count, *shape)))
    return tuple(tensors)


def presence(seed, shape):
    """Zeros and ones [count, rows, inputs], with a frequency for each input.

    Frequencies are uniform in [0, 1], but one in six is zero.
    """
    first, second = draws.split(seed, 2)
    count, _, inputs = shape
    frequency = draws.uniform(first, (count, 1, inputs), -0.2, 1.0)
    return tf.cast(draws.uniform(second, shape) < frequency, tf.float32)


def clusters(seed, count: int, rows: int, classes: int, shape):
    """Points around class centres: x [count, rows, *shape], labels.

    The spread around the centres, from 0.3 to 3 times the distance scale of the
    centres, is drawn for each instance, and so is the share of wrong labels:
    none in half of the instances, up to 0.3 in the others. So some data are
    learned quickly, others never completely.
    """
    seeds = draws.split(seed, 7)
    size = math.prod(shape)
    centres = draws.normal(seeds[0], (count, classes, size))
    label = draws.integers(seeds[1], (count, rows), 0, classes)
    spread = draws.log_uniform(seeds[2], (count, 1, 1), 0.3, 3.0)
    x = tf.gather(centres, label, batch_dims=1)
    x += spread * draws.normal(seeds[3], (count, rows, size))
    share = tf.nn.relu(draws.uniform(seeds[4], (count, 1), -0.3, 0.3))
    wrong = draws.uniform(seeds[5], (count, rows)) < share
    other = draws.integers(seeds[6], (count, rows), 0, classes)
    label = tf.where(wrong, other, label)
    return tf.reshape(x, (count, rows, *shape)), label
