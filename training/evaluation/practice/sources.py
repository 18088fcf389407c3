"""Data of endless minibatches: drawn with replacement, or generated anew.

A minibatch is a function of the seed and the number of the step alone. NumPy
draws it, so that it is the same on every machine, compiled or not.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

FEWEST_ROWS = 10_000
"""With fewer rows, a network could memorize them."""

_HELD_OUT = 2**32 - 1
"""A seed apart from those of the steps."""


class Source(Protocol):
    """Data of a task; `x` and `y` are arrays or tuples of arrays."""

    def draw(self, generator: np.random.Generator) -> tuple:
        """One minibatch (x, y)."""

    def held_out(self) -> tuple:
        """Examples (x, y) that are in no minibatch."""


class Rows(NamedTuple):
    """A data set; minibatches are drawn with replacement.

    Args:
        x: inputs, one row an example.
        y: targets of these inputs.
        x_held_out: inputs that are not trained on.
        y_held_out: targets of these.
        batch: rows of a minibatch.
    """

    x: np.ndarray
    y: np.ndarray
    x_held_out: np.ndarray
    y_held_out: np.ndarray
    batch: int

    def draw(self, generator):
        """One minibatch."""
        rows = generator.integers(0, len(self.y), self.batch)
        return self.x[rows], self.y[rows]

    def held_out(self):
        """The held-out rows."""
        return self.x_held_out, self.y_held_out


class Endless(NamedTuple):
    """Examples that are generated anew at every step.

    Args:
        make: a function of a generator, a number of examples and whether they
            are held out (an unlimited source may ignore that) that returns
            (x, y).
        batch: number of examples of a minibatch.
        held: number of examples that are held out.
    """

    make: Callable
    batch: int
    held: int = 1024

    def draw(self, generator):
        """One minibatch."""
        return self.make(generator, self.batch, False)

    def held_out(self):
        """The same examples at every call."""
        return self.make(np.random.default_rng(_HELD_OUT), self.held, True)


def minibatches(source: Source, seed: int, first: int, count: int) -> tuple:
    """The minibatches of `count` steps from step `first` on.

    Args:
        source: source of the data.
        seed: seed of the run.
        first: number of the first step.
        count: number of steps.

    Returns:
        x and y, each stacked along a new first axis.
    """
    drawn = [
        source.draw(np.random.default_rng((seed, step)))
        for step in range(first, first + count)
    ]
    xs, ys = zip(*drawn, strict=True)
    return _stacked(xs), _stacked(ys)


def _stacked(values):
    if isinstance(values[0], tuple):
        return tuple(np.stack(part) for part in zip(*values, strict=True))
    return np.stack(values)
