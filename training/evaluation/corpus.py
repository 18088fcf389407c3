"""The optimizer against Adam and RMSProp on held-out draws of a set."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from problems.ensemble import Row
from training.evaluation.held_out import final_log_loss
from training.evaluation.rollouts import Runs
from training.rules.baselines import Baselines

OWN_RATES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
"""Initial learning rates from which the learned optimizer must work."""

RATES = tuple(float(f"{rate:.3g}") for rate in np.logspace(-5, 0, 7))
"""Learning rates among which the rivals' best is found."""

MARGIN = 0.1
"""A row is won if the log loss is lower by at least this, else lost."""


class Result(NamedTuple):
    """Median final log losses on one row."""

    own: tuple  # one for each of OWN_RATES
    adam: float  # at 2e-3
    rmsprop: float  # at 1e-2
    best_adam: float  # at the best of RATES
    best_rmsprop: float


def own(
    rule, vector, row: Row, steps: int = 1000, count: int = 32, seed: int = 7
) -> list[float]:
    """Median final log losses of the learned rule, for each of OWN_RATES.

    Args:
        rule: the learned rule.
        vector: its meta-parameters.
        row: row of a set.
        steps: number of steps of each run.
        count: number of held-out instances.
        seed: seed of the instances and of the steps' minibatches and noise.
    """
    runs = Runs(rule, row.family, count, len(OWN_RATES))
    losses = runs(tf.constant(vector), OWN_RATES, steps, seed)
    return [float(x) for x in np.median(final_log_loss(losses), axis=-1)]


def rivals(
    row: Row, steps: int = 1000, count: int = 32, seed: int = 7
) -> list[float]:
    """The other fields of `Result`, on the same instances as `own`."""
    settings = [(True, 2e-3), (False, 1e-2)]
    settings += [(kind, rate) for kind in (True, False) for rate in RATES]
    kinds = tuple(kind for kind, _ in settings for _ in range(count))
    runs = Runs(Baselines(kinds), row.family, count, len(settings))
    losses = runs(tf.zeros((0,)), [rate for _, rate in settings], steps, seed)
    final = np.median(final_log_loss(losses), axis=-1)
    adam, rmsprop = final[2 : 2 + len(RATES)], final[2 + len(RATES) :]
    return [float(x) for x in (*final[:2], adam.min(), rmsprop.min())]


def wins(results: dict, rival: str) -> list[int]:
    """Rows won against a field of `Result`, for each of OWN_RATES."""
    return [
        sum(
            result.own[k] <= getattr(result, rival) - MARGIN
            for result in results.values()
        )
        for k in range(len(OWN_RATES))
    ]
