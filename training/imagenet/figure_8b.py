"""`python -m training.imagenet.figure_8b --runs=DIR --out=DIR`: Figure 8b.

Draws training loss against steps for the runs of `evaluate_imagenet` in a
folder, one panel for each model. Writes `figure_8b.png` and `figure_8b.csv`;
the last line is JSON.
"""

import collections
import csv
import json
import math
import pathlib
from typing import NamedTuple

import matplotlib
import numpy as np
from absl import app, flags

from training.common import palette
from training.common.tables import table
from training.imagenet import models, optimizers
from training.imagenet.files import read_curve
from training.imagenet.settings import Settings

RUNS = flags.DEFINE_string(
    "runs", None, "Folder that contains the folders of the runs."
)
OUT = flags.DEFINE_string(
    "out", None, "Folder for the picture and the CSV file."
)

WINDOW = 10  # steps that a curve is smoothed over
STYLES = {
    name: palette.style(k) for k, name in enumerate(optimizers.OPTIMIZERS)
}

DASHES = [(0, (1, 1)), (0, (6, 2)), (0, (2, 4)), (0, (6, 2, 1, 2))]
"""Lines of one optimizer at several learning rates."""


class Finished(NamedTuple):
    """A run found in a folder."""

    settings: Settings
    rows: list[dict]  # lines of its curve
    figures: dict  # its results; empty for an interrupted run

    @property
    def label(self) -> str:
        """The optimizer, with the learning rate if it is not the default."""
        rate = self.settings.learning_rate
        name = self.settings.optimizer
        return name if rate is None else f"{name} {rate:g}"

    @property
    def losses(self) -> np.ndarray:
        """Losses of all lines of the curve."""
        return np.array([float(row["loss"]) for row in self.rows])

    @property
    def last_loss(self) -> float:
        """Median loss of the last lines."""
        return float(np.median(self.losses[-WINDOW:]))


def find(folder: pathlib.Path) -> dict[str, list[Finished]]:
    """All runs by model, in the order of the tables.

    Raises:
        ValueError: there are no runs.
    """
    found = {}
    for path in sorted(folder.glob("*/settings.json")):
        rows = read_curve(path.with_name("train.csv"))
        told = path.with_name("figures.json")
        run = Finished(
            Settings.read(path),
            rows,
            json.loads(told.read_text()) if told.exists() else {},
        )
        if rows:
            found.setdefault(run.settings.model, []).append(run)
    if not found:
        raise ValueError(
            "Argument `folder` must have runs of training.evaluate_imagenet "
            f"in it. Received: folder={str(folder)!r}"
        )
    order = list(optimizers.OPTIMIZERS)
    return {
        model: sorted(
            found[model],
            key=lambda run: (order.index(run.settings.optimizer), run.label),
        )
        for model in models.MODELS
        if model in found
    }


def plot(runs: dict[str, list[Finished]], path: pathlib.Path):
    """Pale curves of each step's loss, and the median of the last steps."""
    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    columns = min(len(runs), 2)
    lines = math.ceil(len(runs) / columns)
    figure, panels = pyplot.subplots(
        lines, columns, figsize=(5.2 * columns, 3.4 * lines + 0.6),
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for panel, (model, own) in zip(panels.flat, runs.items(), strict=False):
        others = collections.Counter()
        for run in own:
            steps = [int(row["step"]) for row in run.rows]
            colour, style = STYLES[run.settings.optimizer].values()
            if run.settings.learning_rate is not None:
                # Beside runs at other rates, and at the default one.
                style = DASHES[others[run.settings.optimizer] % len(DASHES)]
                others[run.settings.optimizer] += 1
            panel.plot(steps, run.losses, color=colour, alpha=0.2, linewidth=1)
            panel.plot(
                steps, _smooth(run.losses), color=colour, linestyle=style,
                label=run.label,
            )  # fmt: skip
        panel.set_yscale("log")
        low, high = panel.get_ylim()
        subs = (1, 2, 3, 5) if high > 5 * low else range(1, 10)
        panel.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter(ticker.NullFormatter())
        panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        # The loss of a uniform prediction.
        panel.axhline(math.log(models.CLASSES), color="0.5", linewidth=0.8)
        panel.set_title(model)
        panel.grid(True, which="both", alpha=0.2)
        panel.legend(frameon=False, fontsize=8)
        panel.set_xlabel("step (minibatches)")
        panel.set_ylabel("training loss (nats)")
    for panel in panels.flat[len(runs) :]:
        panel.remove()
    figure.suptitle(_scale(runs), fontsize=10)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _scale(runs: dict[str, list[Finished]]) -> str:
    """The size of the runs, so that none is mistaken for one of the paper's."""
    every = [run.settings for own in runs.values() for run in own]

    def range_of(name):
        values = sorted({getattr(settings, name) for settings in every})
        return " or ".join(f"{value:,}" for value in values)

    return (
        f"Training from scratch on {range_of('examples')} pictures of "
        f"{range_of('image_size')} x {range_of('image_size')}, batches of "
        f"{range_of('batch_size')}; median of {WINDOW} steps. Grey: a guess"
    )


def _smooth(losses: np.ndarray) -> list:
    """Running median of the last lines (of fewer at the start)."""
    stops = range(1, len(losses) + 1)
    return [np.median(losses[max(k - WINDOW, 0) : k]) for k in stops]


def write_csv(runs: dict[str, list[Finished]], path: pathlib.Path):
    """Writes every line of every run."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "optimizer", "step", "seconds", "loss"])
        for model, own in runs.items():
            for run in own:
                for row in run.rows:
                    writer.writerow(
                        [model, run.label]
                        + [row[key] for key in ("step", "seconds", "loss")]
                    )


def figures(runs: dict[str, list[Finished]]) -> list[dict]:
    """The numbers of the table, one record per run."""
    return [
        {
            "model": model,
            "optimizer": run.label,
            "steps": int(run.rows[-1]["step"]),
            "first_loss": float(run.losses[0]),
            "largest_loss": float(run.losses.max()),
            "last_loss": run.last_loss,
            "finite": bool(np.isfinite(run.losses).all()),
            "step_seconds": run.figures.get("step_seconds"),
            "peak_megabytes": run.figures.get("peak_megabytes"),
        }
        for model, own in runs.items()
        for run in own
    ]


def main(argv):
    """Draws, writes and prints the figure."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are taken. Received: {argv[1:]}")
    try:
        runs = find(pathlib.Path(RUNS.value))
    except ValueError as error:
        raise app.UsageError(str(error)) from error
    out = pathlib.Path(OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    plot(runs, out / "figure_8b.png")
    write_csv(runs, out / "figure_8b.csv")
    told = figures(runs)
    header = list(told[0])
    print(table(header, [[_cell(row[key]) for key in header] for row in told]))
    print(json.dumps(told))


def _cell(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    flags.mark_flags_as_required(["runs", "out"])
    app.run(main)
