"""Learning curves: a worker's whole meta-iterations beside one machine's pool.

A worker unrolls the instances it has drawn to their end; one machine continues
with a pool of instances of all ages. The meta-steps are the same, but in
another order. The worker's part is done in this process:
`tests/test_cluster_programs` shows that a worker process does the same, line by
line.
"""

import csv
import pathlib

import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

from training.distributed.run import AsynchronousRun
from training.evaluation.held_out import HeldOut
from training.research import delays
from training.rules.hierarchical import Hierarchical
from training.runs.local import Run

RATE = 1e-3
SEEDS = 3
POINTS = 6
"""Number of points of a curve, besides the first."""

ONE_MACHINE, ONE_WORKER = "one machine", "one worker"


def _of_one_machine(config, wanted):
    """The meta-parameters after each number of updates in `wanted`."""
    run, found = Run(Hierarchical(), delays.rows(), config), []
    list(run.compile())
    while len(found) < len(wanted):
        if run.state.updates >= wanted[len(found)]:
            found.append((run.state.updates, run.state.vector))
        run.iterate()
    return found


def _of_one_worker(config, wanted):
    """The same for whole meta-iterations, one after another."""
    run = AsynchronousRun(Hierarchical(), delays.rows(), config)
    list(run.compile())
    found = [(0, run.state.vector)]
    run.start()
    while len(found) < len(wanted):
        if run.results(1.0) is None:
            continue
        run.pull()
        if run.state.updates >= wanted[len(found)]:
            found.append((run.state.updates, run.state.vector))
    list(run.finish())
    return found


def learn(updates: int) -> dict:
    """Maps (kind, seed) to updates and held-out log losses, [K, 2].

    The log loss is the mean over the rows of the medians of 8 held-out
    instances after 200 steps.

    Args:
        updates: number of updates of each run.
    """
    wanted = [updates * k // POINTS for k in range(POINTS + 1)]
    held_out = HeldOut(
        Hierarchical(), delays.rows(), delays.settings(0, RATE), steps=200
    )
    found = {}
    kinds = {ONE_MACHINE: _of_one_machine, ONE_WORKER: _of_one_worker}
    cases = [(kind, seed) for seed in range(SEEDS) for kind in kinds]
    for kind, seed in tqdm(cases, unit="run"):
        vectors = kinds[kind](delays.settings(seed, RATE), wanted)
        found[kind, seed] = np.array(
            [
                (done, np.mean([own for own, *_ in held_out(vector).values()]))
                for done, vector in vectors
            ]
        )
    return found


def draw(found: dict, out: pathlib.Path):
    """Curves of all seeds as a picture and a CSV."""
    out.mkdir(parents=True, exist_ok=True)
    figure, axis = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    colours = {ONE_MACHINE: "C0", ONE_WORKER: "C1"}
    for (kind, seed), curve in found.items():
        label = kind if seed == 0 else None
        axis.plot(*curve.T, color=colours[kind], marker=".", label=label)
    axis.set(xlabel="updates", ylabel="held-out log loss after 200 steps")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(out / "one_worker.png", dpi=120)
    plt.close(figure)
    with (out / "one_worker.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", "seed", "updates", "log_loss"])
        for (kind, seed), curve in found.items():
            for done, loss in curve:
                writer.writerow([kind, seed, int(done), f"{loss:.4f}"])
