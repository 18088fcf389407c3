"""The optimizers of the suite: the learned one, and those of Keras."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from hrnn_opt.keras_optimizer import LEARNING_RATE
from training.evaluation import candidates, rivals

ADAM, COSINE = "Adam", "AdamW cosine"

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Learning rates of Adam, and of AdamW, among which the best is found."""


class Contender(NamedTuple):
    """An optimizer with the learning rates that it is run with."""

    name: str
    make: Callable  # function of the number of steps to an unbuilt optimizer
    rates: tuple
    set_rate: Callable  # function of the optimizer and a rate


class CosineToZero(keras.optimizers.schedules.LearningRateSchedule):
    """A cosine from `peak`, a variable, to zero after a number of steps.

    Args:
        steps: number of steps until zero is reached.
    """

    def __init__(self, steps: int):
        self.peak = tf.Variable(RATES[0], dtype=tf.float32)
        self.steps = steps

    def __call__(self, step):
        """The learning rate of a step."""
        return keras.optimizers.schedules.CosineDecay(self.peak, self.steps)(
            step
        )

    def get_config(self):
        """The number of steps."""
        return {"steps": self.steps}


def _set_rate(optimizer, rate):
    optimizer.learning_rate = rate


def _set_peak(optimizer, rate):
    optimizer._learning_rate.peak.assign(rate)


def adam() -> Contender:
    """Adam with each of its constant rates, which the score is relative to."""
    return Contender(
        ADAM, lambda steps: keras.optimizers.Adam(RATES[0]), RATES, _set_rate
    )


def references() -> dict[str, Contender]:
    """Optimizers that are shown for reference, by name.

    AdamW with a cosine to zero, which knows the number of steps, with each of
    the rates; others at Keras's default learning rate, if the installed Keras
    has them. (Adam's default is one of `RATES`.)
    """
    found = {
        COSINE: Contender(
            COSINE,
            lambda steps: keras.optimizers.AdamW(CosineToZero(steps)),
            RATES,
            _set_peak,
        )
    }
    available = rivals.available()
    for name in ("RMSprop", "Muon", "ScheduleFreeAdamW"):
        if name in available:
            rival = available[name]
            found[name] = Contender(
                name,
                lambda steps, rival=rival: rival.make(rival.default),
                (rival.default,),
                _set_rate,
            )
    return found


def learned(weights: str, rates=None) -> Contender:
    """The learned optimizer.

    Args:
        weights: a name in the package, or the path of a weights file or of a
            checkpoint of a run.
        rates: first step lengths; None for the constructor's default.
    """
    rule, vector = candidates.load(weights)
    make = functools.partial(candidates.optimizer, rule, vector)
    return Contender(
        f"own {candidates.digest(rule, vector)}",
        lambda steps: make(),
        tuple(rates or (LEARNING_RATE,)),
        _set_rate,
    )
