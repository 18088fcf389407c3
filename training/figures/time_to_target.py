"""Times to a target, and performance profiles (Dolan and More, 2002).

As in AlgoPerf (Dahl et al., 2023): for every factor tau, a profile gives the
share of tasks on which an optimizer reached the target within tau times the
time of the fastest one; its score is the mean height of that curve for tau
from 1 to 4.
"""

import numpy as np

from training.evaluation.curves import Curve

LONGEST = 4.0
"""Factor up to which profiles are integrated, as in AlgoPerf."""


def reached(curve: Curve, target: float) -> tuple[float, float]:
    """Steps and seconds until the loss is at most `target`, or infinity."""
    return (
        reached_by(curve.steps, curve.losses, target),
        reached_by(curve.seconds, curve.losses, target),
    )


def reached_by(when, losses, target: float) -> float:
    """The first of `when` with a loss of at most `target`, or infinity."""
    below = np.flatnonzero(np.asarray(losses) <= target)
    return float(when[below[0]]) if len(below) else np.inf


def ratios(times: dict) -> dict:
    """Times of each optimizer relative to the fastest one, task by task.

    Args:
        times: [tasks] for each optimizer; infinite where the target was not
            reached.

    Returns:
        Ratios of the same shape; infinite for all if no optimizer reached the
        target.
    """
    table = np.array(list(times.values()), float)
    fastest = np.min(table, axis=0)
    usable = np.isfinite(table) & np.isfinite(fastest)
    # A target that holds from the start is reached by all at once.
    relative = np.divide(
        table, fastest, out=np.ones_like(table), where=usable & (fastest > 0)
    )
    relative = np.where(usable, relative, np.inf)
    return dict(zip(times, relative, strict=True))


def profile(relative, tau) -> np.ndarray:
    """Share of tasks that are solved within each factor.

    Args:
        relative: [tasks], from `ratios`.
        tau: factors, [points].
    """
    return np.mean(np.asarray(relative)[:, None] <= np.asarray(tau), axis=0)


def score(relative) -> float:
    """The mean height of the profile between 1 and `LONGEST`.

    It is exact: each task contributes what remains of the interval beyond its
    ratio.
    """
    left = LONGEST - np.minimum(np.asarray(relative), LONGEST)
    return float(np.mean(left / (LONGEST - 1.0)))
