"""Rules on drawn problems: quantiles of the loss over instances."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from problems.family import Family
from training.common.results import Results
from training.engine.objective import LARGEST
from training.evaluation.candidates import digest
from training.evaluation.rollouts import SEGMENT, Runs
from training.rules.baselines import Baselines, GradientDescent

EVERY = 10
"""Steps between the points of a curve."""

QUANTILES = (0.25, 0.5, 0.75)

SEED = 1_000_003
"""Seed of the instances; meta-training uses others."""


class Contestant(NamedTuple):
    """A rule, and the learning rates it is run with."""

    name: str
    make: Callable  # from the number of instances to the rule
    vector: object  # its meta-parameters
    rates: tuple
    version: str = ""  # distinguishes versions of meta-parameters


NOTHING = np.zeros(0, "float32")


def adam(rates) -> Contestant:
    """Keras's Adam, with its default settings except for the rates."""
    return Contestant(
        "Adam", lambda n: Baselines((True,) * n), NOTHING, tuple(rates)
    )


def rmsprop(rates) -> Contestant:
    """Keras's RMSprop, with its default settings except for the rates."""
    return Contestant(
        "RMSProp", lambda n: Baselines((False,) * n), NOTHING, tuple(rates)
    )


def sgd(rates) -> Contestant:
    """Plain gradient descent."""
    return Contestant("SGD", lambda n: GradientDescent(), NOTHING, tuple(rates))


def learned(name: str, rule, vector, rates) -> Contestant:
    """A learned rule with its meta-parameters."""
    return Contestant(
        name, lambda n: rule, vector, tuple(rates), digest(rule, vector)
    )


def points(steps: int) -> np.ndarray:
    """Numbers of steps after which losses are recorded."""
    return np.arange(EVERY, steps + 1, EVERY)


def quantiles(
    family: Family,
    name: str,
    who: Contestant,
    steps: int,
    count: int,
    results: Results,
) -> np.ndarray:
    """Quantiles of the full loss, [3, rates, points].

    All contestants get the same instances, minibatches and noise.

    Args:
        family: the problems.
        name: name of the family, for the finished jobs.
        who: what is run.
        steps: a multiple of 50.
        count: number of instances.
        results: finished jobs.
    """

    def job():
        rule = who.make(count * len(who.rates))
        runs = Runs(rule, family, count, len(who.rates))
        losses = runs(tf.constant(who.vector), who.rates, steps, SEED)
        kept = np.nan_to_num(losses[EVERY - 1 :: EVERY], nan=LARGEST)
        kept = np.minimum(kept, LARGEST)  # [points, rates, instances]
        found = np.quantile(kept, QUANTILES, axis=-1, method="nearest")
        return np.moveaxis(found, 1, 2).ravel()

    key = (
        f"drawn {name}; {who.name} {who.version}; rates {who.rates}; "
        f"{steps} steps; {count} instances"
    )
    shape = (len(QUANTILES), len(who.rates), steps // EVERY)
    return np.reshape(results.get(key, job), shape)


def check_steps(settings, default: int) -> int:
    """Steps in whole segments."""
    return settings.steps_or(default, SEGMENT)
