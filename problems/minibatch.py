"""Minibatches of 10 to 200 and noisy gradients: section 4.1.3."""

import dataclasses
import math

import tensorflow as tf

from problems import draws
from problems.family import Family, VectorFamily

SMALLEST, LARGEST = 10, 200


def batch_sizes(seed, count: int):
    """Minibatch sizes of `count` instances, log-uniform from 10 to 200."""
    sizes = draws.log_uniform(seed, (count,), SMALLEST, LARGEST + 1)
    return tf.minimum(tf.cast(sizes, tf.int32), LARGEST)


PASSES = 4
"""One run in this many draws its minibatches independently in every step."""

STRIDES = (1, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43)


def in_turn(seed, step, sizes, rows: int):
    """The minibatch of a step, for every instance, as rows of its data.

    As in practice, a run goes through all rows in a random order, then through
    all again in a new one: the noise of its gradients sums to zero over a pass,
    and an optimizer trained only on independent minibatches takes this for an
    oscillation. One run of `PASSES` draws independent minibatches: there a pass
    ends with every step.

    An order is (offset + k stride) modulo rows, with a prime stride, which is
    random enough where rows are exchangeable.

    Args:
        seed: seed of a run.
        step: number of the step in the run.
        sizes: minibatch size of each instance, [B], at most `rows`.
        rows: number of rows of each data set.

    Returns:
        Dict of `rows` [B, width] to gather, the same width for all since
        shapes are static, and `weights` [B, width], which average over the
        first `size` of them.
    """
    count, width = sizes.shape[0], min(LARGEST, rows)
    sizes = tf.minimum(sizes, rows)[:, None]
    key = draws.integers(seed, (count, 1), 0, 2**31 - 1)
    advance = tf.where(key % PASSES == 0, rows, sizes)
    # Two passes at most are seen in one step.
    place = advance * step + tf.range(width)
    noise = draws.mixed(key, place // rows)
    strides = [k for k in STRIDES if rows % k or k == 1]
    # Gathered, not sliced: XLA compiles a slice anew for every random begin.
    which = noise // rows % len(strides)
    stride = tf.gather(tf.constant(strides), which)
    return {
        "rows": (noise % rows + place % rows * stride) % rows,
        "weights": tf.cast(tf.range(width) < sizes, tf.float32)
        / tf.cast(sizes, tf.float32),
    }


def data_set(seed, x, y, start) -> dict:
    """The data of a `DataSet`, with minibatch sizes drawn from `seed`."""
    sizes = batch_sizes(seed, x.shape[0])
    return {"x": x, "y": y, "batch_size": sizes, "start": start}


class DataSet(Family):
    """Mean loss over a data set x, y [B, rows, ...], seen in minibatches.

    Subclasses define `losses`, `rows`, and `draw`, which returns
    `data_set(...)`.
    """

    rows: int

    minibatched = True
    noisy = True

    def losses(self, params, x, y):
        """Losses of every row, [B, rows]."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `losses`."
        )

    def full_loss(self, data, params):
        """Mean over all rows, [B]."""
        return tf.reduce_mean(self.losses(params, data["x"], data["y"]), -1)

    def batch(self, data, seed, step=0):
        """A minibatch for each instance, of that instance's size."""
        return in_turn(seed, step, data["batch_size"], self.rows)

    def rows_of(self, data, batch):
        """x and y of a minibatch's rows, [B, width, ...]."""
        return [
            tf.gather(data[key], batch["rows"], batch_dims=1)
            for key in ("x", "y")
        ]

    def loss(self, data, params, batch):
        """Mean over the minibatch, [B]."""
        x, y = self.rows_of(data, batch)
        return tf.reduce_sum(batch["weights"] * self.losses(params, x, y), -1)


@dataclasses.dataclass(frozen=True)
class MinibatchQuadratic(VectorFamily):
    """Mean of (v . theta)^2 over a minibatch of random vectors v, [dim].

    v = M^T s with random signs s, drawn anew at every step, and a matrix M
    for each instance. The full loss is the expectation, |M theta|^2.

    Args:
        dim: number of parameters.
    """

    dim: int = 10
    name: str = "minibatch_quadratic"

    minibatched = True
    noisy = True

    def draw(self, seed, count):
        """Matrices, minibatch sizes and start points."""
        matrix, sizes, start = draws.split(seed, 3)
        shape = (count, self.dim, self.dim)
        return {
            "matrix": draws.normal(matrix, shape) / math.sqrt(self.dim),
            "batch_size": batch_sizes(sizes, count),
            "start": (draws.normal(start, (count, self.dim)),),
        }

    def batch(self, data, seed, step=0):
        """The signs s, [B, LARGEST, dim], and weights that average."""
        sizes = data["batch_size"][:, None]
        inside = tf.cast(tf.range(LARGEST) < sizes, tf.float32)
        return {
            "signs": draws.signs(
                draws.fold(seed, step), (sizes.shape[0], LARGEST, self.dim)
            ),
            "weights": inside / tf.cast(sizes, tf.float32),
        }

    def loss(self, data, params, batch):
        """Mean over the minibatch, [B]."""
        pulled = tf.linalg.matvec(data["matrix"], params[0])
        products = tf.linalg.matvec(batch["signs"], pulled)
        return tf.reduce_sum(batch["weights"] * products**2, axis=-1)

    def full_loss(self, data, params):
        """The expectation, [B]."""
        pulled = tf.linalg.matvec(data["matrix"], params[0])
        return tf.reduce_sum(pulled**2, axis=-1)

    def argmin(self, data):
        """Zero."""
        return (tf.zeros_like(data["start"][0]),)
