"""Figure 8a: four problems never seen in meta-training.

Loss of the whole training set against steps; Adam and RMSProp have the
learning rates of the paper (section 5.1).
"""

import keras
import numpy as np

from training.common import output
from training.common.results import Results
from training.common.tables import table
from training.figures.comparison import OWN, Comparison, check_data, final
from training.figures.settings import Settings
from training.figures.tasks import TASKS, UNSEEN

STEPS, EVERY, SEEDS = 500, 25, 3


def optimizers(own) -> dict:
    """Name of each optimizer to a function that makes it."""
    return {
        OWN: own,
        "Adam 2e-3": lambda: keras.optimizers.Adam(2e-3),
        "RMSProp 1e-2": lambda: keras.optimizers.RMSprop(1e-2),
    }


def run(settings: Settings, results: Results) -> dict:
    """Draws the figure; returns median final losses."""
    tasks = settings.selected(TASKS if settings.only else UNSEEN)
    check_data(tasks, settings)
    steps, seeds = settings.steps_or(STEPS, EVERY), settings.seeds or SEEDS
    comparison = Comparison(settings, results, steps, EVERY)
    makers = optimizers(comparison.own)
    found = comparison.curves(
        (task, who, make, seed)
        for task in tasks
        for who, make in makers.items()
        for seed in range(seeds)
    )
    _draw(tasks, list(makers), found, settings)
    output.write_csv(
        settings.out / "figure_8a.csv",
        ["task", "optimizer", "seed", "step", "loss"],
        (
            [task, who, seed, int(step), float(loss)]
            for (task, who), runs in found.items()
            for seed, curve in enumerate(runs)
            for step, loss in zip(curve.steps, curve.losses, strict=True)
        ),
    )
    medians = {
        task: {w: float(np.median(final(found[task, w]))) for w in makers}
        for task in tasks
    }
    rows = [
        [task, *(f"{loss:.4g}" for loss in medians[task].values())]
        for task in tasks
    ]
    print(f"\nTraining loss after {steps} steps, median of {seeds} seeds\n")
    print(table(["task", *makers], rows))
    return {
        "steps": steps,
        "seeds": seeds,
        "batch": settings.batch,
        "pictures": settings.pictures,
        "final": medians,
    }


def _draw(tasks, names, found, settings):
    figure, all_axes = output.page(len(tasks), columns=2, width=4.2)
    for task, axes in zip(tasks, all_axes, strict=True):
        for k, who in enumerate(names):
            runs = found[task, who]
            losses = [curve.losses for curve in runs]
            output.draw_range(axes, runs[0].steps, losses, who, k)
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter("")
        axes.set_title(task)
        axes.set_xlabel("step")
        axes.set_ylabel("training loss (nats)")
        axes.grid(True, alpha=0.2)
    all_axes[0].legend(frameon=False)
    figure.suptitle(
        f"Never seen: {settings.pictures} pictures, minibatches of "
        f"{settings.batch}; median and range of seeds",
        fontsize=10,
    )
    output.save(figure, settings.out / "figure_8a.png")
