"""The effect of stale gradients on learning: each is applied k updates late.

This is no simulation but meta-training in one process, with gradients taken at
the meta-parameters of k updates ago.
"""

import collections
import csv
import pathlib

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import problems
from training.engine.config import MetaConfig
from training.rules.hierarchical import Hierarchical
from training.runs.local import Run

ROWS = ("log_sum_exp", "quadratic_20", "logistic")
DELAYS = (0, 10, 100, 1000)
RATES = (1e-3, 1e-4)


class Delayed(Run):
    """A run with stale gradients.

    Args:
        delay: k, in updates.
        arguments: arguments of `Run`.
    """

    def __init__(self, delay: int, *arguments):
        super().__init__(*arguments)
        self._vectors = collections.deque(maxlen=delay + 1)

    def read(self) -> np.ndarray:
        """The meta-parameters of k updates ago, or the initial ones."""
        self._vectors.append(self.state.vector)
        return self._vectors[0]


def rows() -> tuple:
    """The three rows, with equal weights."""
    return tuple(
        row._replace(weight=1 / len(ROWS))
        for row in problems.meta_training_set("paper")
        if row.name in ROWS
    )


def settings(seed: int, rate: float) -> MetaConfig:
    """Small settings, for quick runs; the meta-rate does not decay."""
    return MetaConfig(
        seed=seed, work=160, mean_steps=50.0, first_mean_unrolls=4.0,
        mean_unrolls=4.0, meta_rate=rate, meta_rate_end=rate,
    )  # fmt: skip


def learn(iterations: int, seed: int = 0) -> dict:
    """(delay, meta-rate) to meta-losses, [iterations]."""
    steps, found = None, {}
    cases = [(delay, rate) for rate in RATES for delay in DELAYS]
    for delay, rate in tqdm(cases, unit="run"):
        run = Delayed(delay, Hierarchical(), rows(), settings(seed, rate))
        if steps:
            run.steps = steps  # They hold no state.
        else:
            list(run.compile())
            steps = run.steps
        found[delay, rate] = np.array(
            [run.iterate()[1].meta_loss for _ in range(iterations)]
        )
    return found


def smooth(losses: np.ndarray, width: int = 100) -> np.ndarray:
    """Means over windows of `width`."""
    return losses[: len(losses) // width * width].reshape(-1, width).mean(1)


def draw(found: dict, out: pathlib.Path) -> Figure:
    """Curves of the meta-loss as a picture and a CSV."""
    out.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(
        1, len(RATES), figsize=(9, 3.6), sharey=True, layout="constrained"
    )
    for axis, rate in zip(axes, RATES, strict=True):
        for delay in DELAYS:
            curve = smooth(found[delay, rate])
            x = 100 * (np.arange(len(curve)) + 1)
            axis.plot(x, curve, label=f"{delay} updates late")
        axis.set(title=f"meta-rate {rate:g}", xlabel="updates")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("meta-loss (mean of 100)")
    axes[0].legend()
    figure.savefig(out / "delays.png", dpi=120)
    with (out / "delays.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["delay", "meta_rate", "updates", "meta_loss"])
        for (delay, rate), losses in found.items():
            for k, value in enumerate(smooth(losses)):
                writer.writerow([delay, rate, 100 * (k + 1), f"{value:.4f}"])
    return figure
