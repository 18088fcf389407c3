"""Where tensors lie in one flat array of parameters, and sums over them.

The rule works on arrays [F, R, width, ...]: R rows of `width` parameters, each
row inside one tensor. B problem instances are one more axis, the last.
"""

import functools
import math

import numpy as np
from keras import ops

from hrnn_opt.rule import eigenbasis, step_length

NARROW = 64
"""Rows of several tensors that would be narrower are single parameters: a
tensor's values are then spread by a product, and all arrays of a step are
traversed as one (1.6 times as fast for an MLP with rows of 2)."""


class Segments:
    """The rows of T tensors, laid one after another without padding.

    Args:
        sizes: number of parameters of each tensor. The width is their greatest
            common divisor, or 1 if that is below `NARROW`; a problem with one
            tensor is a single row.
        inputs: number of inputs of each tensor (`step_length.wide_share`); the
            default, 1, is right for the problems of meta-training, none of
            which has a wide tensor.

        shapes: shape of each tensor, for `eigenbasis`; None if no tensor is to
            be seen as a matrix.

    Raises:
        ValueError: no tensors, or an empty one.
    """

    def __init__(self, sizes, inputs=None, shapes=None):
        self.sizes = tuple(int(n) for n in sizes)
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(
                "Argument `sizes` must name at least one tensor, each with at "
                f"least one parameter. Received: sizes={self.sizes}"
            )
        self.inputs = tuple(inputs or (1,) * len(self.sizes))
        self.shapes = None if shapes is None else tuple(map(tuple, shapes))
        self.width = functools.reduce(math.gcd, self.sizes)
        if len(self.sizes) > 1 and self.width < NARROW:
            self.width = 1
        rows = [n // self.width for n in self.sizes]
        self.rows = sum(rows)
        owner = np.repeat(np.arange(len(rows)), rows)
        # [T, R]: 1 where the row belongs to the tensor.
        self.membership = np.equal.outer(np.arange(len(rows)), owner)

    def __eq__(self, other):
        """Equal sizes: what is compiled for one serves the other."""
        return isinstance(other, Segments) and self._key() == other._key()

    def __hash__(self):
        return hash(self._key())

    def _key(self):
        return self.sizes, self.inputs, self.shapes

    @property
    def total_size(self) -> int:
        """Number of parameters of the whole problem."""
        return sum(self.sizes)

    def to_rows(self, flat):
        """[N, ...] to [1, R, width, ...]."""
        return ops.reshape(flat, (1, self.rows, self.width, *flat.shape[1:]))

    def from_rows(self, x):
        """[1, R, width, ...] to [N, ...]: the inverse of `to_rows`."""
        return ops.reshape(x, (self.total_size, *x.shape[3:]))

    def sides(self, limit: float) -> list:
        """`eigenbasis.sides_of_all`; None for each tensor without shapes."""
        shapes = self.shapes or ((),) * len(self.sizes)
        return eigenbasis.sides_of_all(shapes, limit)

    def split(self, x) -> list:
        """[F, N, ...] to one array [F, n, ...] for each tensor."""
        return list(ops.split(x, np.cumsum(self.sizes)[:-1].tolist(), axis=1))

    def total(self, x):
        """Sums over each tensor: [F, R, width, ...] to [F, T, ...]."""
        by_row = ops.sum(x, axis=2)
        if self.rows == len(self.sizes):
            return by_row
        return self._multiply(self.membership, by_row)

    def spread(self, v):
        """Each tensor's value for its rows: [F, T, ...] to [F, R, 1, ...]."""
        if self.rows != len(self.sizes):
            v = self._multiply(np.transpose(self.membership), v)
        return ops.expand_dims(v, 2)

    def divide_by_sizes(self, v):
        """Sums over each tensor to means, [F, T, ...]."""
        return v / self._sizes_beside(len(v.shape), v.dtype)

    def column_of_sizes(self, x):
        """Sizes to broadcast against [F, T, ...], for x [F, R, width, ...]."""
        return self._sizes_beside(len(x.shape) - 1, x.dtype)

    def column_of_shares(self, x, wide_inputs: float):
        """`step_length.wide_share`, in the same way."""
        shares = step_length.wide_share(self.inputs, wide_inputs)
        return _beside(shares, len(x.shape) - 1, x.dtype)

    def _sizes_beside(self, axes: int, dtype):
        return _beside(self.sizes, axes, dtype)

    @staticmethod
    def _multiply(matrix, v):
        """A matrix [i, j] times every [j, ...] of v, [F, j, ...]."""
        columns = ops.reshape(v, (*v.shape[:2], -1))
        product = ops.matmul(ops.cast(matrix, v.dtype), columns)
        return ops.reshape(product, (*product.shape[:2], *v.shape[2:]))


def _beside(values, axes: int, dtype):
    """A number for each tensor, to broadcast against [F, T, ...]."""
    shape = (-1,) + (1,) * (axes - 2)
    return ops.cast(np.reshape(values, shape), dtype)
