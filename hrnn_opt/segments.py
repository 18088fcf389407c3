"""Where tensors lie in one flat array of parameters, and sums over them.

The rule works on arrays [F, ..., R, width]: R rows of `width` parameters, each
row inside one tensor. B problem instances are an axis before the rows.
"""

import functools
import math

import numpy as np
from keras import ops


class Segments:
    """The rows of T tensors, laid one after another without padding.

    Args:
        sizes: number of parameters of each tensor. The width is their greatest
            common divisor, so a problem with one tensor is a single row.

    Raises:
        ValueError: no tensors, or an empty one.
    """

    def __init__(self, sizes):
        self.sizes = tuple(int(n) for n in sizes)
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(
                "Argument `sizes` must name at least one tensor, each with at "
                f"least one parameter. Received: sizes={self.sizes}"
            )
        self.width = functools.reduce(math.gcd, self.sizes)
        rows = [n // self.width for n in self.sizes]
        self.rows = sum(rows)
        owner = np.repeat(np.arange(len(rows)), rows)
        # [T, R]: 1 where the row belongs to the tensor.
        self.membership = np.equal.outer(np.arange(len(rows)), owner)

    def __eq__(self, other):
        """Equal sizes: what is compiled for one serves the other."""
        return isinstance(other, Segments) and self.sizes == other.sizes

    def __hash__(self):
        return hash(self.sizes)

    @property
    def total_size(self) -> int:
        """Number of parameters of the whole problem."""
        return sum(self.sizes)

    def to_rows(self, flat):
        """[..., N] to [1, ..., R, width]."""
        return ops.reshape(flat, (1, *flat.shape[:-1], self.rows, self.width))

    def from_rows(self, x):
        """[1, ..., R, width] to [..., N]: the inverse of `to_rows`."""
        return ops.reshape(x, (*x.shape[1:-2], self.total_size))

    def total(self, x):
        """Sums over each tensor: [F, ..., R, width] to [F, ..., T]."""
        by_row = ops.sum(x, axis=-1)
        if self.rows == len(self.sizes):
            return by_row
        owner = ops.cast(np.transpose(self.membership), by_row.dtype)
        return ops.matmul(by_row, owner)

    def spread(self, v):
        """Each tensor's value to its rows: [F, ..., T] to [F, ..., R, 1]."""
        if self.rows != len(self.sizes):
            v = ops.matmul(v, ops.cast(self.membership, v.dtype))
        return ops.expand_dims(v, -1)
