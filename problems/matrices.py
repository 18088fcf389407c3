"""Problems of matrices: several tensors, saddle points, flat directions."""

import dataclasses
import math

import tensorflow as tf

from problems import draws
from problems.family import Family


@dataclasses.dataclass(frozen=True)
class MatrixFactorization(Family):
    """mean (U V - A)^2 with U [size, rank] and V [rank, size].

    A = U* V* with entries of variance one, so that the minimum is zero; zero
    is a saddle point. Any invertible matrix between U* and V* gives another
    minimum.

    Args:
        size: rows and columns of A.
        rank: rank of A.
    """

    size: int = 10
    rank: int = 3
    name: str = "matrix_factorization"

    @property
    def shapes(self):
        """U and V."""
        return ((self.size, self.rank), (self.rank, self.size))

    def draw(self, seed, count):
        """Factors of A, and start points of a random size."""
        seeds = draws.split(seed, 5)
        scale = self.rank**-0.25
        u, v, u0, v0 = (
            draws.normal(seeds[k], (count, *shape))
            for k, shape in enumerate(self.shapes * 2)
        )
        size = draws.log_uniform(seeds[4], (count, 1, 1), 0.1, 1.0)
        return {
            "factors": (scale * u, scale * v),
            "start": (size * u0, size * v0),
        }

    def full_loss(self, data, params):
        """Losses [B]."""
        u, v = data["factors"]
        return tf.reduce_mean((params[0] @ params[1] - u @ v) ** 2, (-2, -1))

    def argmin(self, data):
        """The factors that A was made of."""
        return data["factors"]


@dataclasses.dataclass(frozen=True)
class MatrixProduct(Family):
    """mean (W_1 W_2 ... W_L - A)^2 with square matrices: a deep linear net.

    Args:
        size: rows and columns.
        depth: number L of matrices.
    """

    size: int = 5
    depth: int = 3
    name: str = "matrix_product"

    @property
    def shapes(self):
        """L square matrices."""
        return ((self.size, self.size),) * self.depth

    def draw(self, seed, count):
        """Factors of A, and start points."""
        shape = (count, self.size, self.size)
        matrices = [
            draws.normal(one, shape) / math.sqrt(self.size)
            for one in draws.split(seed, 2 * self.depth)
        ]
        return {
            "factors": tuple(matrices[: self.depth]),
            "start": tuple(matrices[self.depth :]),
        }

    def full_loss(self, data, params):
        """Losses [B]."""
        difference = _product(params) - _product(data["factors"])
        return tf.reduce_mean(difference**2, axis=(-2, -1))

    def argmin(self, data):
        """The factors that A was made of."""
        return data["factors"]


def _product(matrices):
    product = matrices[0]
    for matrix in matrices[1:]:
        product = product @ matrix
    return product


@dataclasses.dataclass(frozen=True)
class MatrixInverse(Family):
    """mean (A X - 1)^2, whose minimum is the inverse of A.

    Args:
        size: rows and columns of A, whose singular values are within 0.1 to 1.
    """

    size: int = 6
    name: str = "matrix_inverse"

    @property
    def shapes(self):
        """X."""
        return ((self.size, self.size),)

    def draw(self, seed, count):
        """The matrix, its inverse, and start points."""
        left, right, middle, start = draws.split(seed, 4)
        u = draws.orthogonal(left, count, self.size)
        v = draws.orthogonal(right, count, self.size)
        s = draws.log_uniform(middle, (count, 1, self.size), 0.1, 1.0)
        shape = (count, self.size, self.size)
        return {
            "matrix": tf.matmul(u * s, v, transpose_b=True),
            "inverse": tf.matmul(v / s, u, transpose_b=True),
            "start": (draws.normal(start, shape),),
        }

    def full_loss(self, data, params):
        """Losses [B]."""
        difference = data["matrix"] @ params[0] - tf.eye(
            self.size, dtype=params[0].dtype
        )
        return tf.reduce_mean(difference**2, axis=(-2, -1))

    def argmin(self, data):
        """The inverse."""
        return (data["inverse"],)
