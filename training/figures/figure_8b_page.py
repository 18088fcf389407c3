"""The section on Figure 8b, from the CSV of the ImageNet runs."""

import csv
import pathlib

import numpy as np

from training.figures.markdown import markdown, number

LAST = 10
"""Number of lines at the end of a run whose median is its last loss."""


def caption(path: pathlib.Path) -> tuple[str, list]:
    """Caption and defeats from a CSV with model, optimizer, step and loss."""
    runs = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            run = runs.setdefault((row["model"], row["optimizer"]), [])
            run.append((int(float(row["step"])), float(row["loss"])))
    rows, behind = [], []
    for model in dict.fromkeys(model for model, _ in runs):
        own = {o: run for (m, o), run in runs.items() if m == model}
        for o, run in own.items():
            largest = max(loss for _, loss in run)
            rows.append([model, o, run[-1][0], number(run[0][1]),
                         number(largest), f"{_last(run):.3f}"])  # fmt: skip
        # Runs of different lengths are compared where the shortest one ends.
        end = min(run[-1][0] for run in own.values())
        there = {
            o: _last([line for line in run if line[0] <= end])
            for o, run in own.items()
        }
        winner = min(there, key=there.get)
        if "hrnn" in there and winner != "hrnn":
            behind.append(
                f"Figure 8b, {model}, after {end} steps: "
                f"{there['hrnn']:.2f}, {winner} {there[winner]:.2f}."
            )
    return (
        'Training loss of ImageNet architectures from scratch ("last" is the '
        f"median of the last {LAST} lines). With a miniature data set and few "
        "steps this shows that the programs run, not which optimizer is "
        "better.\n\n"
        + markdown(
            ["model", "optimizer", "steps", "first", "largest", "last"], rows
        ),
        behind,
    )


def _last(run) -> float:
    """Median loss of the last lines."""
    return float(np.median([loss for _, loss in run[-LAST:]]))
