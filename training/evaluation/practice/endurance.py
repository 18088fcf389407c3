"""Runs that are many times as long as those of the suite: do they last?

A learned optimizer may do well for as long as it was looked at and then undo
what it learned. There are no rivals here: a run is compared with itself.
"""

import functools
import pathlib
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from training.common import output
from training.common.results import Results
from training.common.tables import table
from training.evaluation.practice import registry
from training.evaluation.practice.runs import BLOCK, Run, Trainer
from training.evaluation.practice.sources import Passes, Rows
from training.evaluation.practice.suite import Settings, Suite

WINDOW = 20
"""Blocks whose mean counts as the loss at a time: 1,000 minibatches."""

REPLACEMENT, PASSES, ANEW = "with replacement", "passes", "generated anew"
"""How minibatches are made: rows drawn independently, or each once a pass, or
examples that nobody has seen."""


class Course(NamedTuple):
    """How a long run went; losses are means over `WINDOW` blocks."""

    first: float  # mean of the first block
    lowest: float
    step: int  # at which the lowest window ended
    last: float

    @property
    def risen(self) -> float:
        """The last loss relative to the lowest, infinite after divergence."""
        if self.last == self.lowest:
            return 1.0 if np.isfinite(self.last) else np.inf
        return self.last / self.lowest if self.lowest else np.inf

    @property
    def diverged(self) -> bool:
        """Whether the loss ends above the first one, or not finite."""
        return not self.last < self.first


def course(losses: np.ndarray) -> Course:
    """The course of a run, from the mean loss of each block.

    Args:
        losses: at least `WINDOW` of them, infinite from a divergence on.
    """
    windows = np.convolve(losses, np.ones(WINDOW) / WINDOW, "valid")
    windows = np.where(np.isfinite(windows), windows, np.inf)
    best = int(np.argmin(windows))
    return Course(
        float(losses[0]),
        float(windows[best]),
        (best + WINDOW) * BLOCK,
        float(windows[-1]),
    )


def run(settings: Settings, out: pathlib.Path) -> dict:
    """Runs the learned optimizer, prints a table and draws all losses.

    Args:
        settings: tasks, weights, steps and seeds; results are kept in its file.
        out: folder of `endurance.png`.

    Returns:
        The numbers of runs and of divergences, and the largest rise, which is
        None after a divergence.

    Raises:
        ValueError: fewer steps than a window has.
        FileNotFoundError: a data set is not prepared.
        ImportError: tensorflow-datasets is not installed.
    """
    check_steps(settings.steps)
    tasks = settings.selected()
    registry.check_data(tasks)
    own, results = Suite(settings).own, Results(settings.results)
    found = {}
    for task in tqdm(tasks, unit="task"):
        for how, source in ways(task.source()).items():
            trainer = functools.cache(
                lambda task=task, source=source: Trainer(
                    task, source, own, settings.steps
                )
            )
            for rate in own.rates:
                for seed in range(settings.seeds):
                    numbers = results.get(
                        f"{task.key()}; {how}; {own.name} {rate:g}; "
                        f"seed {seed}; {settings.steps} steps",
                        lambda trainer=trainer, seed=seed, rate=rate: (
                            trainer().run(seed, rate).numbers()
                        ),
                    )
                    key = task.name, how, rate, seed
                    found[key] = Run.from_numbers(numbers).losses
    return report(found, out)


def check_steps(steps: int):
    """Checks that a run is as long as a window.

    Raises:
        ValueError: it is shorter.
    """
    if steps < WINDOW * BLOCK:
        raise ValueError(
            f"Argument `steps` must be at least {WINDOW * BLOCK}. "
            f"Received: steps={steps}"
        )


def ways(source) -> dict:
    """The sources of a task, by how minibatches are made."""
    if isinstance(source, Rows):
        return {REPLACEMENT: source, PASSES: Passes(source)}
    return {ANEW: source}


def report(found: dict, out: pathlib.Path) -> dict:
    """The table, the picture and the figures; see `run`."""
    courses = {key: course(losses) for key, losses in found.items()}
    lines = [
        [task, how, f"{rate:g}", seed, f"{one.first:.4g}", f"{one.lowest:.4g}",
         f"{one.step:,}", f"{one.last:.4g}", f"{one.risen:.2f}",
         "yes" if one.diverged else "no"]
        for (task, how, rate, seed), one in courses.items()
    ]  # fmt: skip
    header = [
        "task", "minibatches", "rate", "seed", "first", "lowest", "at step",
        "last", "last / lowest", "diverged",
    ]  # fmt: skip
    print("\nLong runs: mean losses of 1,000 minibatches\n")
    print(table(header, lines))
    draw(found, out / "endurance.png")
    rise = max(one.risen for one in courses.values())
    return {
        "runs": len(courses),
        "diverged": sum(one.diverged for one in courses.values()),
        "largest_rise": round(rise, 3) if np.isfinite(rise) else None,
    }


def draw(found: dict, path: pathlib.Path):
    """Writes a picture with a panel for each task: loss against steps."""
    tasks = list(dict.fromkeys(task for task, *_ in found))
    labels = list(dict.fromkeys(f"{h}, from {r:g}" for _, h, r, _ in found))
    figure, panels = output.page(len(tasks), columns=4, width=3.2, height=2.6)
    for task, axes in zip(tasks, panels, strict=True):
        lines = {}
        for (name, how, rate, _), losses in found.items():
            if name == task:
                lines.setdefault(f"{how}, from {rate:g}", []).append(losses)
        for label, losses in lines.items():
            k = labels.index(label)
            losses = np.array(losses)
            losses[~np.isfinite(losses)] = np.nan
            steps = BLOCK * (np.arange(losses.shape[1]) + 0.5)
            output.draw_range(axes, steps, losses, label, k)
        axes.set_yscale("log")
        axes.set_title(task, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(True, alpha=0.2)
    shown = {}
    for axes in panels:
        lines, names = axes.get_legend_handles_labels()
        shown |= dict(zip(names, lines, strict=True))
    figure.legend(
        list(shown.values()), list(shown), frameon=False, fontsize=7,
        loc="outside upper center", ncols=3,
    )  # fmt: skip
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("loss, mean of 50 minibatches", fontsize=9)
    output.save(figure, path)
