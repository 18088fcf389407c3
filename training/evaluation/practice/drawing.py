"""Small multiples: the loss of every task against steps."""

import pathlib

import numpy as np
from matplotlib import ticker

from training.common import output
from training.evaluation.practice.contenders import ADAM, COSINE
from training.evaluation.practice.runs import BLOCK
from training.evaluation.practice.suite import Found


def draw(found: list[Found], own: str, rates, path: pathlib.Path):
    """Writes a picture with a panel for each task.

    Curves are means over blocks of minibatches: medians over seeds, with their
    range shaded.

    Args:
        found: results of each task.
        own: the learned optimizer's name among them.
        rates: its first step lengths.
        path: path of the PNG.
    """
    figure, panels = output.page(len(found), columns=5, width=2.9, height=2.4)
    for one, axes in zip(found, panels, strict=True):
        lines = [(f"learned, from {rate:g}", own, rate) for rate in rates]
        lines.append(("best constant Adam", ADAM, one.best(ADAM)))
        if one.of(COSINE):
            lines.append(("best AdamW with a cosine", COSINE, one.best(COSINE)))
        for k, (label, name, rate) in enumerate(lines):
            losses = np.array([run.losses for run in one.runs[name, rate]])
            losses[~np.isfinite(losses)] = np.nan
            steps = BLOCK * (np.arange(losses.shape[1]) + 0.5)
            output.draw_range(axes, steps, losses, label, k)
        _frame(axes, one, own, rates)
    panels[0].legend(frameon=False, fontsize=7)
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("loss, mean of 50 minibatches", fontsize=9)
    output.save(figure, path)


def _frame(axes, one, own, rates):
    """Sets the relevant range, and a title with the score."""
    axes.set_yscale("log")
    scores = "  ".join(f"{one.score(own, rate).ratio:.2f}" for rate in rates)
    axes.set_title(f"{one.task.name}: {scores}", fontsize=9)
    best = one.runs[ADAM, one.best(ADAM)]
    low = min(np.min(run.losses) for run in best)
    high = max(run.losses[0] for run in best)
    # A loss far above the first one leaves the panel, which can be seen.
    axes.set_ylim(0.8 * low, 2 * high)
    # Few panels span a decade: powers of ten alone would give few ticks.
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.tick_params(labelsize=7)
    axes.grid(True, alpha=0.2)
