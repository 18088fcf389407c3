"""Streams: data drawn anew in every step, so that gradient noise persists.

A student sees every minibatch once. The lowest loss that it can reach is known:
the full loss is the *excess* over it, on held-out rows and without noise, and
its infimum is 0 wherever the student can represent the teacher. Not in the
paper, whose section 4.1.3 asks for randomly generated data without saying how
much.
"""

import dataclasses
from typing import Any

import tensorflow as tf

from problems import draws
from problems.convex import cross_entropy
from problems.family import Family
from problems.streams.inputs import pick

SMALLEST = 4
"""Rows of the smallest minibatch."""


class Stream(Family):
    """Base of all streams. Subclasses define data, `losses` and `full_loss`.

    Attributes:
        rows: number of rows of the largest minibatch.
        held: number of held-out rows, for the full loss.
    """

    rows: int
    held: int

    minimum = None
    minibatched = True
    noisy = True

    def rows_at(self, data, seed):
        """New rows: inputs and targets, [B, rows, ...]."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `rows_at`."
        )

    def losses(self, data, params, x, y, weights):
        """Losses of every row, [B, rows], noise included."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `losses`."
        )

    def batch(self, data, seed, step=0):
        """New rows, and weights that average over the instance's minibatch."""
        x, y = self.rows_at(data, draws.fold(seed, step))
        sizes = data["batch_size"][:, None]
        inside = tf.cast(tf.range(self.rows) < sizes, tf.float32)
        return {
            "x": x,
            "y": y,
            "weights": inside / tf.cast(sizes, tf.float32),
        }

    def loss(self, data, params, batch):
        """Mean over the minibatch, [B]."""
        x, y, weights = batch["x"], batch["y"], batch["weights"]
        losses = self.losses(data, params, x, y, weights)
        return tf.reduce_sum(weights * losses, -1)

    def sizes_of(self, seed, count: int):
        """Minibatch sizes, log-uniform from 4 to `rows`."""
        sizes = draws.log_uniform(seed, (count,), SMALLEST, self.rows + 1)
        return tf.minimum(tf.cast(sizes, tf.int32), self.rows)


def even(count: int, rows: int):
    """Equal weights for all rows, [B, rows]."""
    return tf.fill((count, rows), 1.0 / rows)


def divergence(wanted, logits):
    """KL(wanted || softmax(logits)) over the last axis; never negative.

    Args:
        wanted: logarithms of probabilities.
        logits: logits of the student.
    """
    difference = wanted - tf.nn.log_softmax(logits)
    # Rounding may make a zero negative.
    return tf.nn.relu(tf.reduce_sum(tf.exp(wanted) * difference, axis=-1))


@dataclasses.dataclass(frozen=True)
class TeacherStudent(Stream):
    """A random network of the student's own shape gives the targets.

    The teacher's outputs are centred and scaled by its last layer, so that it
    stays a network of the student's shape, and `argmin` is the teacher.

    Args:
        network: a student of `networks` or `sequences`.
        source: where inputs come from, one of `inputs`.
        rows: number of rows of the largest minibatch.
        held: number of held-out rows, for the full loss.
    """

    network: Any
    source: Any
    rows: int = 48
    held: int = 64

    minimum = 0.0
    prefix = "stream"

    @property
    def name(self) -> str:
        """The name, with the network's."""
        wide = getattr(self.source, "decades", 0)
        unscaled = "_unscaled" if wide else ""
        return f"{self.prefix}_{self.network.name}{unscaled}"

    @property
    def shapes(self) -> tuple:
        """The shapes of the network."""
        return self.network.shapes

    def spread(self, seed, count):
        """Standard deviations of the teacher's outputs, [B]."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `spread`."
        )

    def own(self, seed, count) -> dict:
        """Data that determine the noise."""
        del seed, count
        return {}

    def draw(self, seed, count):
        """Inputs' distribution, teacher, held rows, sizes, initial weights."""
        seeds = draws.split(seed, 7)
        source = self.source.draw(seeds[0], count)
        held = self.source.sample(source, seeds[1], self.held)
        weights = even(count, self.held)
        teacher = list(self.network.initial(seeds[2], count))
        raw = self.network(teacher, held, weights)
        mean = tf.reduce_mean(raw, axis=1)
        deviation = tf.math.reduce_std(raw, axis=(1, 2), keepdims=True)
        gain = self.spread(seeds[3], count)[:, None, None] / (deviation + 1e-3)
        teacher[-2] *= gain
        teacher[-1] = (teacher[-1] - mean) * gain[:, :, 0]
        return {
            "source": source,
            "held": held,
            "teacher": tuple(teacher),
            "wanted": self.network(teacher, held, weights),
            "batch_size": self.sizes_of(seeds[4], count),
            "start": self.network.initial(seeds[5], count),
            **self.own(seeds[6], count),
        }

    def rows_at(self, data, seed):
        """Inputs, and the teacher's targets for them, with noise."""
        first, second = draws.split(seed, 2)
        x = self.source.sample(data["source"], first, self.rows)
        # A minibatch smaller than `rows` has statistics of its own.
        sizes = data["batch_size"][:, None]
        inside = tf.cast(tf.range(self.rows) < sizes, tf.float32)
        weights = inside / tf.cast(sizes, tf.float32)
        outputs = self.network(data["teacher"], x, weights)
        return x, self.observed(data, outputs, second)

    def observed(self, data, outputs, seed):
        """Targets, from the teacher's outputs [B, rows, outputs]."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `observed`."
        )

    def argmin(self, data):
        """The teacher."""
        return data["teacher"]

    def student(self, data, params):
        """The student's outputs on the held rows."""
        count = data["batch_size"].shape[0]
        return self.network(params, data["held"], even(count, self.held))


@dataclasses.dataclass(frozen=True)
class Labels(TeacherStudent):
    """Classes, drawn from the teacher's softmax. The loss is cross entropy.

    The spread of the teacher's logits is log-uniform from 0.5 to 6: labels
    from nearly random to nearly certain. The full loss is the mean of
    KL(teacher || student).
    """

    def spread(self, seed, count):
        """How far the logits are spread."""
        return draws.log_uniform(seed, (count,), 0.5, 6.0)

    def observed(self, data, outputs, seed):
        """A class for every row, [B, rows]."""
        return pick(outputs, draws.uniform(seed, outputs.shape[:2]))

    def losses(self, data, params, x, y, weights):
        """Cross entropy of every row."""
        return cross_entropy(self.network(params, x, weights), y)

    def full_loss(self, data, params):
        """Mean divergence on the held rows, [B]."""
        wanted = tf.nn.log_softmax(data["wanted"])
        return tf.reduce_mean(divergence(wanted, self.student(data, params)), 1)


@dataclasses.dataclass(frozen=True)
class Values(TeacherStudent):
    """Numbers: the teacher's outputs plus noise. The loss is squared error.

    Outputs spread by 1, the noise is log-uniform from 0.05 to 1. The full
    loss is the mean squared distance to the teacher.
    """

    prefix = "stream_values"

    def spread(self, seed, count):
        """Ones: outputs have a standard deviation of 1."""
        del seed
        return tf.ones((count,))

    def own(self, seed, count):
        """Standard deviations of the noise."""
        return {"sd": draws.log_uniform(seed, (count,), 0.05, 1.0)}

    def observed(self, data, outputs, seed):
        """Outputs with noise, [B, rows, outputs]."""
        noise = draws.normal(seed, outputs.shape)
        return outputs + data["sd"][:, None, None] * noise

    def losses(self, data, params, x, y, weights):
        """Squared error of every row."""
        outputs = self.network(params, x, weights)
        return tf.reduce_mean((outputs - y) ** 2, axis=-1)

    def full_loss(self, data, params):
        """Mean squared distance on the held rows, [B]."""
        distance = self.student(data, params) - data["wanted"]
        return tf.reduce_mean(distance**2, axis=(1, 2))
