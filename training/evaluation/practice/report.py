"""Tables and figures of the suite."""

import pathlib

import numpy as np

from training.common import output
from training.common.tables import table
from training.evaluation.practice import contenders, score
from training.evaluation.practice.contenders import ADAM
from training.evaluation.practice.suite import Found
from training.evaluation.practice.task import HALVES


def references(found: list[Found]) -> list[str]:
    """Reference rivals that were run on all of these tasks."""
    return [
        name
        for name in contenders.references()
        if all(one.of(name) for one in found)
    ]


def _ratio(one: score.Score) -> str:
    flag = f" ({one.diverged} div.)" if one.diverged else ""
    return f"{one.ratio:.2f}{flag}"


def _accuracy(one: score.Score) -> str:
    return "" if np.isnan(one.accuracy) else f"{one.accuracy:.3f}"


def columns(found: list[Found], own: str, rates) -> dict[str, list]:
    """Scores of every optimizer on every task, by the table's column."""
    by_column = {
        f"own {rate:g}": [one.score(own, rate) for one in found]
        for rate in rates
    }
    by_column["Adam 1e-3"] = [one.score(ADAM, 1e-3) for one in found]
    for name in references(found):
        by_column[name] = [one.score(name) for one in found]
    return by_column


def tasks_table(found: list[Found], own: str, rates) -> str:
    """One line per task: ratios, then losses and accuracy at the first rate."""
    by_column = columns(found, own, rates)
    header = [
        "task", *by_column, "best Adam", "loss", "Adam's", "held-out",
        "Adam's", "accuracy", "Adam's",
    ]  # fmt: skip
    lines = []
    for k, one in enumerate(found):
        mine, best = one.score(own, rates[0]), one.score(ADAM)
        lines.append(
            [one.task.name, *(_ratio(s[k]) for s in by_column.values()),
             f"{best.rate:g}", f"{mine.loss:.4g}", f"{best.loss:.4g}",
             f"{mine.held_out_loss:.4g}", f"{best.held_out_loss:.4g}",
             _accuracy(mine), _accuracy(best)]
        )  # fmt: skip
    return table(header, lines)


def summary_table(found: list[Found], own: str, rates) -> str:
    """One line per optimizer: a summary of these tasks."""
    lines = []
    for column, scores in columns(found, own, rates).items():
        whole = score.summary(scores)
        lines.append(
            [column, f"{whole.geometric_mean:.3f}", f"{whole.worst:.2f}",
             f"{whole.won} of {whole.tasks}", whole.diverged]
        )  # fmt: skip
    header = ["optimizer", "geometric mean", "worst", "won", "diverged"]
    return table(header, lines)


def write_csv(found: list[Found], own: str, path: pathlib.Path):
    """Writes a line for each task, optimizer and learning rate.

    Args:
        found: results of each task.
        own: the learned optimizer's name among them.
        path: path of the file.
    """
    rows = [
        [one.task.name, one.task.half, "own" if name == own else name, rate,
         *one.score(name, rate)[:-1]]
        for one in found
        for name, rate in one.runs
    ]  # fmt: skip
    output.write_csv(
        path,
        [
            "task",
            "half",
            "optimizer",
            "learning_rate",
            *score.Score._fields[:-1],
        ],
        rows,
    )


def report(found: list[Found], own: str, rates) -> dict:
    """Prints tables of each half; returns their figures.

    Args:
        found: results of each task.
        own: the learned optimizer's name among them.
        rates: its first step lengths; details are shown for the first.
    """
    figures = {}
    for half in HALVES:
        part = [one for one in found if one.task.half == half]
        if not part:
            continue
        print(
            f"\n{half.capitalize()} half: mean loss of the last 100 "
            "minibatches / that of the best of six constant Adam rates\n"
        )
        print(tasks_table(part, own, rates))
        print()
        print(summary_table(part, own, rates))
        for rate in rates:
            whole = score.summary([one.score(own, rate) for one in part])
            figures[f"{half} {rate:g}"] = {
                "geometric_mean": round(whole.geometric_mean, 4),
                "worst": round(whole.worst, 3),
                "won": whole.won,
                "tasks": whole.tasks,
                "diverged": whole.diverged,
            }
    return figures
