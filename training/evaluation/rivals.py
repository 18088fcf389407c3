"""Current optimizers of Keras itself, with default and tuned learning rates.

Each runs at Keras's default learning rate and at the best of a grid around it.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras

FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""The grid, as multiples of the default learning rate."""

OUTPUT = "output"
"""Name of the last layer in our models: Muon leaves it to AdamW."""


class Rival(NamedTuple):
    """An optimizer of Keras."""

    name: str
    default: float  # learning rate
    make: Callable  # function of a learning rate to an unbuilt optimizer

    @property
    def grid(self) -> tuple:
        """Learning rates among which the best is found."""
        return tuple(float(f"{f * self.default:.3g}") for f in FACTORS)


def _sgd(rate):
    return keras.optimizers.SGD(rate, momentum=0.9)


def _muon(rate):
    return keras.optimizers.Muon(rate, exclude_layers=[OUTPUT])


# Name, class in Keras, its default learning rate, and how it is made if this
# takes more than the learning rate.
_TABLE = (
    ("Adam", "Adam", 1e-3, None),
    ("AdamW", "AdamW", 1e-3, None),
    ("RMSprop", "RMSprop", 1e-3, None),
    ("SGD momentum", "SGD", 1e-2, _sgd),
    ("Lion", "Lion", 1e-3, None),
    ("Muon", "Muon", 1e-3, _muon),
    ("ScheduleFreeAdamW", "ScheduleFreeAdamW", 2.5e-3, None),
)


def available() -> dict[str, Rival]:
    """The rivals that the installed Keras has, by name."""
    found = {}
    for name, kind, default, make in _TABLE:
        constructor = getattr(keras.optimizers, kind, None)
        if constructor is not None:
            found[name] = Rival(name, default, make or constructor)
    return found


def best(losses: dict) -> float:
    """The learning rate with the lowest loss; NaN counts as infinite.

    Args:
        losses: losses of each learning rate.
    """
    return min(
        losses,
        key=lambda rate: (
            losses[rate] if losses[rate] == losses[rate] else float("inf")
        ),
    )


def at_edge(rate: float, rival: Rival) -> bool:
    """Whether a rate is at the grid's edge: a wider one might be better."""
    return rate in (min(rival.grid), max(rival.grid))
