"""Scores: how a run's last losses compare with those of the best Adam."""

from typing import NamedTuple

import numpy as np

from training.evaluation.practice.runs import Run

LAST = 2
"""Blocks at the end of a curve, 100 steps, whose mean loss counts."""

CAP = 100.0
"""The largest ratio, and that of a run that diverged."""

WON = 1.0
"""Ratios below this are wins."""


class Score(NamedTuple):
    """The score of one optimizer on one task."""

    ratio: float  # geometric mean over seeds, each at most `CAP`
    diverged: int  # seeds whose loss did not stay finite
    loss: float  # mean over seeds of the last minibatches' loss
    held_out_loss: float  # mean over seeds
    accuracy: float  # mean over seeds; NaN without classes
    rate: float  # the learning rate


def final_loss(run: Run) -> float:
    """The mean loss of the last 100 minibatches; infinite after divergence."""
    mean = float(np.mean(run.losses[-LAST:]))
    return mean if np.isfinite(mean) else np.inf


def best_rate(runs: dict) -> float:
    """The learning rate with the lowest geometric mean of final losses.

    Args:
        runs: runs of each learning rate, a list over seeds.
    """
    return min(
        runs,
        key=lambda rate: np.mean(np.log([final_loss(r) for r in runs[rate]])),
    )


def score(runs: list[Run], best: list[Run], rate: float) -> Score:
    """Compares an optimizer's runs with those of the best Adam.

    Args:
        runs: runs of the optimizer, one per seed.
        best: Adam's runs at its best learning rate, with the same seeds.
        rate: the learning rate of `runs`.
    """
    own = np.array([final_loss(run) for run in runs])
    rival = np.array([final_loss(run) for run in best])
    ratios = np.where(np.isfinite(own), np.minimum(own / rival, CAP), CAP)
    return Score(
        float(np.exp(np.mean(np.log(ratios)))),
        int(np.sum(~np.isfinite(own))),
        float(np.mean(own)),
        float(np.mean([run.held_out_loss for run in runs])),
        float(np.mean([run.accuracy for run in runs])),
        rate,
    )


class Summary(NamedTuple):
    """The scores of one optimizer on several tasks."""

    geometric_mean: float
    worst: float
    won: int
    diverged: int  # number of runs
    tasks: int


def summary(scores: list[Score]) -> Summary:
    """Summarizes the scores of all tasks."""
    ratios = np.array([score.ratio for score in scores])
    return Summary(
        float(np.exp(np.mean(np.log(ratios)))),
        float(np.max(ratios)),
        int(np.sum(ratios < WON)),
        sum(score.diverged for score in scores),
        len(scores),
    )
