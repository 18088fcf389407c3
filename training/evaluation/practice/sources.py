"""Data of endless minibatches: drawn with replacement, or generated anew.

For long runs there are also passes, in which every example comes once, as in
`fit`. A minibatch is a function of the seed and the number of the step alone.
NumPy draws it, so that it is the same on every machine, compiled or not.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

FEWEST_ROWS = 10_000
"""With fewer rows, a network could memorize them."""

_HELD_OUT = 2**32 - 1
"""A seed apart from those of the steps."""

_PASS = 2**32 - 2
"""What tells the seeds of passes apart from those of steps."""


class Source(Protocol):
    """Data of a task; `x` and `y` are arrays or tuples of arrays."""

    def at(self, seed: int, step: int) -> tuple:
        """The minibatch (x, y) of a step."""

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

    def at(self, seed, step):
        """The minibatch of a step."""
        generator = np.random.default_rng((seed, step))
        return self.take(generator.integers(0, len(self.y), self.batch))

    def take(self, rows):
        """The minibatch of these rows."""
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

    def at(self, seed, step):
        """The minibatch of a step."""
        generator = np.random.default_rng((seed, step))
        return self.make(generator, self.batch, False)

    def held_out(self):
        """The same examples at every call."""
        return self.make(np.random.default_rng(_HELD_OUT), self.held, True)


class Passes(NamedTuple):
    """The rows of a data set in passes, each in a new order.

    What is left over at the end of a pass is not used in it.

    Args:
        data: the data set.
    """

    data: Rows

    def at(self, seed, step):
        """The minibatch of a step."""
        batch, number = self.data.batch, len(self.data.y)
        done, place = divmod(step, number // batch)
        order = np.random.default_rng((_PASS, seed, done)).permutation(number)
        return self.data.take(order[place * batch : (place + 1) * batch])

    def held_out(self):
        """The held-out rows."""
        return self.data.held_out()


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
    drawn = [source.at(seed, step) for step in range(first, first + count)]
    xs, ys = zip(*drawn, strict=True)
    return _stacked(xs), _stacked(ys)


def _stacked(values):
    if isinstance(values[0], tuple):
        return tuple(np.stack(part) for part in zip(*values, strict=True))
    return np.stack(values)
