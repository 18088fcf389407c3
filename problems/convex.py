"""Quadratic bowls, norms, logistic regression: section 4.1.2."""

import dataclasses
import math

import tensorflow as tf

from problems import draws, safe
from problems.family import VectorFamily
from problems.minibatch import DataSet, data_set


def coupling(seed, count: int, dim: int, low: float, high: float):
    """Random matrices M [count, dim, dim] with condition number sqrt(kappa).

    M = diag(sqrt(lambda)) U with U random orthogonal, so that M^T M has
    exactly the eigenvalues lambda: from 1 down to 1 / kappa, the others
    log-uniform in between. log10 kappa is uniform in [low, high].
    """
    angle, kappa, between = draws.split(seed, 3)
    log_kappa = math.log(10.0) * draws.uniform(kappa, (count, 1), low, high)
    place = draws.uniform(between, (count, dim))
    if dim > 1:
        ends = tf.constant([0.0, 1.0]) + tf.zeros((count, 2))
        place = tf.concat([ends, place[:, 2:]], axis=1)
    root = tf.exp(-0.5 * log_kappa * place)
    return root[:, :, None] * draws.orthogonal(angle, count, dim)


@dataclasses.dataclass(frozen=True)
class Quadratic(VectorFamily):
    """Half of |M (theta - c)|^2, M a random coupling matrix.

    Args:
        dim: number of parameters.
        low: least log10 of the condition number of M^T M.
        high: largest log10 of the condition number.
    """

    dim: int = 20
    low: float = 0.0
    high: float = 4.0

    @property
    def name(self):
        """The name, with the dimension."""
        return f"quadratic_{self.dim}"

    def draw(self, seed, count):
        """Coupling matrices, centres and start points."""
        matrix, centre, start = draws.split(seed, 3)
        return {
            "matrix": coupling(matrix, count, self.dim, self.low, self.high),
            "centre": draws.normal(centre, (count, self.dim)),
            "start": (draws.normal(start, (count, self.dim)),),
        }

    def full_loss(self, data, params):
        """Losses [B]."""
        offset = params[0] - data["centre"]
        pulled = tf.linalg.matvec(data["matrix"], offset)
        return 0.5 * tf.reduce_sum(pulled**2, axis=-1)

    def argmin(self, data):
        """The centre."""
        return (data["centre"],)


@dataclasses.dataclass(frozen=True)
class Norm(VectorFamily):
    """mean_i |theta_i - c_i|^p to the power 1/p, p uniform in [1, 4].

    Args:
        dim: number of parameters.
    """

    dim: int = 20
    name: str = "norm"

    def draw(self, seed, count):
        """Exponents p, centres and start points."""
        exponent, centre, start = draws.split(seed, 3)
        return {
            "exponent": draws.uniform(exponent, (count, 1), 1.0, 4.0),
            "centre": draws.normal(centre, (count, self.dim)),
            "start": (draws.normal(start, (count, self.dim)),),
        }

    def full_loss(self, data, params):
        """Losses [B]."""
        p = data["exponent"]
        # The largest is factored out, or small losses would vanish in powers.
        offset = tf.abs(params[0] - data["centre"])
        largest = tf.stop_gradient(tf.reduce_max(offset, -1, keepdims=True))
        largest = tf.where(largest > safe.TINY, largest, 1.0)
        mean = tf.reduce_mean(safe.power(offset / largest, p), axis=-1)
        return largest[:, 0] * safe.power(mean, 1.0 / p[:, 0])

    def argmin(self, data):
        """The centre."""
        return (data["centre"],)


@dataclasses.dataclass(frozen=True)
class LogisticRegression(DataSet):
    """Binary logistic regression on random points, w [dim] and a scalar b.

    Points are normal, classes come from a random hyperplane, from which points
    are pushed away by a margin of up to 0.5. Unless some labels are flipped,
    the classes are then separable and the infimum, at infinity, is zero.

    Args:
        dim: number of inputs.
        rows: number of points.
        flipped: largest share of wrong labels; the smallest is a quarter of it.
    """

    dim: int = 20
    rows: int = 256
    flipped: float = 0.0

    @property
    def name(self):
        """The name, which tells whether the classes overlap."""
        return "logistic_regression" + ("_overlapping" if self.flipped else "")

    @property
    def minimum(self):
        """Zero; unknown where classes overlap."""
        return None if self.flipped else 0.0

    @property
    def shapes(self):
        """Weights and bias."""
        return ((self.dim,), ())

    def draw(self, seed, count):
        """Points, labels of -1 and 1, minibatch sizes and start points."""
        seeds = draws.split(seed, 9)
        x = draws.normal(seeds[0], (count, self.rows, self.dim))
        normal = draws.normal(seeds[1], (count, self.dim))
        normal /= tf.norm(normal, axis=-1, keepdims=True)
        offset = 0.5 * draws.normal(seeds[2], (count, 1))
        y = tf.where(tf.linalg.matvec(x, normal) > offset, 1.0, -1.0)
        margin = draws.uniform(seeds[3], (count, 1), 0.0, 0.5)
        x += (y * margin)[:, :, None] * normal[:, None, :]
        if self.flipped:
            low, high = self.flipped / 4.0, self.flipped
            share = draws.uniform(seeds[4], (count, 1), low, high)
            wrong = draws.uniform(seeds[5], (count, self.rows)) < share
            y = tf.where(wrong, -y, y)
        w = draws.normal(seeds[6], (count, self.dim))
        b = draws.normal(seeds[7], (count,))
        return data_set(seeds[8], x, y, (w, b))

    def losses(self, params, x, y):
        """Losses of every point, [B, rows]."""
        w, b = params
        return tf.nn.softplus(-y * (tf.linalg.matvec(x, w) + b[:, None]))


def cross_entropy(logits, label):
    """-log softmax(logits)[label] over the last axis; never negative.

    TensorFlow's fused operation is the same; this one has second derivatives
    in every compiler.
    """
    chosen = tf.one_hot(label, logits.shape[-1])
    return -tf.reduce_sum(chosen * tf.nn.log_softmax(logits), axis=-1)


@dataclasses.dataclass(frozen=True)
class SoftmaxRegression(DataSet):
    """Softmax regression with weights [dim, classes] and biases [classes].

    Labels are those of a random linear teacher, so the classes are separable
    and the infimum is zero.

    Args:
        dim: number of inputs.
        classes: number of classes.
        rows: number of points.
        positive: whether inputs are like those of a network's last layer, after
            ReLUs: none is negative, so together they move the logits in one
            direction, dim times as far as one input; initial weights are small.
    """

    dim: int = 10
    classes: int = 5
    rows: int = 256
    positive: bool = False

    @property
    def name(self):
        """The name, which tells whether inputs are positive."""
        return "softmax_regression" + ("_positive" if self.positive else "")

    @property
    def shapes(self):
        """Weights and biases."""
        return ((self.dim, self.classes), (self.classes,))

    def draw(self, seed, count):
        """Points, labels, minibatch sizes and start points."""
        seeds = draws.split(seed, 5)
        x = draws.normal(seeds[0], (count, self.rows, self.dim))
        teacher = draws.normal(seeds[1], (count, self.dim, self.classes))
        w = draws.normal(seeds[2], (count, self.dim, self.classes))
        b = draws.normal(seeds[3], (count, self.classes))
        mean = 0.0
        if self.positive:
            x, mean = tf.nn.relu(x), 1.0 / math.sqrt(2.0 * math.pi)
            w, b = w / math.sqrt(self.dim), tf.zeros_like(b)
        # Inputs without their mean, else one class would have nearly all
        # points.
        logits = (x - mean) @ teacher
        y = tf.argmax(logits, axis=-1, output_type=tf.int32)
        return data_set(seeds[4], x, y, (w, b))

    def losses(self, params, x, y):
        """Losses of every point, [B, rows]."""
        w, b = params
        return cross_entropy(x @ w + b[:, None, :], y)
