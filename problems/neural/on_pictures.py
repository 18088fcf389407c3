"""Small networks on real pictures, many side by side."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from problems import draws
from problems.minibatch import DataSet


def pooled(x: np.ndarray, side: int) -> np.ndarray:
    """Pictures [n, H, W, C] averaged over squares, to [n, side, side, C].

    Raises:
        ValueError: `side` does not divide the height and the width.
    """
    n, height, width, channels = x.shape
    if side < 1 or height % side or width % side:
        raise ValueError(
            f"Argument `side` must divide {height} and {width}. "
            f"Received: side={side}"
        )
    shape = (n, side, height // side, side, width // side, channels)
    return x.reshape(shape).mean(axis=(2, 4))


@dataclasses.dataclass(frozen=True)
class OnPictures(DataSet):
    """A network of another family, on random subsets of a bank of pictures.

    Args:
        network: family that gives the shapes, the initial weights and the
            losses; its inputs and classes must match the pictures.
        x: the bank, [n, ...]; each instance has `network.rows` of them.
        y: classes of the pictures, [n].
        batch_size: size of the minibatches, at most 200.

    Raises:
        ValueError: the pictures differ in size from the network's inputs.
    """

    network: DataSet
    x: np.ndarray = dataclasses.field(repr=False, compare=False)
    y: np.ndarray = dataclasses.field(repr=False, compare=False)
    batch_size: int = 128

    minimum = None

    def __post_init__(self):
        wanted = self.network.draw(0, 1)["x"].shape[2:]
        if math.prod(wanted) != math.prod(self.x.shape[1:]):
            raise ValueError(
                "Argument `x` must have pictures that fit the network's "
                f"inputs {tuple(wanted)}. Received: {self.x.shape[1:]}"
            )

    @property
    def name(self):
        """The name of the network."""
        return f"{self.network.name}_on_pictures"

    @property
    def shapes(self):
        """The shapes of the network."""
        return self.network.shapes

    @property
    def rows(self):
        """Pictures of each instance."""
        return self.network.rows

    def draw(self, seed, count):
        """The network's initial weights, and pictures out of the bank."""
        first, second = draws.split(seed, 2)
        data = self.network.draw(first, count)
        rows = draws.integers(second, (count, self.rows), 0, len(self.x))
        x = tf.gather(tf.constant(self.x, tf.float32), rows)
        return data | {
            "x": tf.reshape(x, data["x"].shape),
            "y": tf.gather(tf.constant(self.y, tf.int32), rows),
            "batch_size": tf.fill((count,), self.batch_size),
        }

    def losses(self, params, x, y):
        """Losses of every picture, [B, rows]."""
        return self.network.losses(params, x, y)
