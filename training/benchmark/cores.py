"""An update on one core and on all.

The number of TensorFlow's threads belongs to a process, so the updates on one
core are made by a second one with one thread. The two take turns, so that noise
affects both alike.
"""

import multiprocessing
import os
import statistics

import keras

from hrnn_opt import HierarchicalRNN
from training.benchmark.steps import MODES, use_cores
from training.benchmark.update import Update, variables_of
from training.common.tables import table

CASES = {
    "one tensor": [1_000_000],
    "200 tensors": [5_000] * 200,
    "a small model": [5_000] * 6,
}
"""Sizes of the tensors of each case."""

OPTIMIZERS = {
    "HierarchicalRNN": HierarchicalRNN,
    "Adam": keras.optimizers.Adam,
}


def run(seconds: float, only: str | None = None) -> dict:
    """Prints and returns how many times as fast an update is on all cores.

    Args:
        seconds: measuring time for each figure.
        only: only cases whose names contain this; None for all.

    Raises:
        ValueError: there is only one core, or no such case.
    """
    cases = {c: s for c, s in CASES.items() if only is None or only in c}
    if not cases:
        raise ValueError(
            f"Flag --only must be part of one of {', '.join(CASES)}. "
            f"Received: --only={only}"
        )
    count = available()
    if count < 2:
        raise ValueError(
            f"Suite `cores` needs at least two cores. Received: {count}"
        )
    # A fresh interpreter: a fork would have this one's threads half.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    other = context.Process(target=serve, args=(there,), daemon=True)
    other.start()
    # Else its end would not be seen here, should it fail.
    there.close()
    rows, result = [], {"cores": count}
    for case, sizes in cases.items():
        for who in OPTIMIZERS:
            update = made(who, sizes)
            here.send((who, case))
            here.recv()
            found = pairs(update, here, seconds)
            one, every = (
                statistics.median(t) for t in zip(*found, strict=True)
            )
            ratio = statistics.median(a / b for a, b in found)
            rows.append(
                [case, who, f"{1e3 * one:.1f}", f"{1e3 * every:.1f}",
                 f"{ratio:.2f}"]
            )  # fmt: skip
            key = f"{case} {who}".lower().replace(" ", "_")
            result[f"speedup_{key}"] = round(ratio, 3)
    here.send(None)
    other.join()
    print(f"\nOne update on one core and on {count}\n")
    print(table(["sizes", "optimizer", "ms, one", "ms, all", "ratio"], rows))
    return result


def available() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def made(who: str, sizes):
    """An update that has been compiled, and made a few times."""
    update = Update(OPTIMIZERS[who](), variables_of(sizes), MODES[0])
    for _ in range(3):
        update.seconds()
    return update


def pairs(update, other, seconds: float) -> list[tuple]:
    """Times of the other process and of this one, in turn."""
    found, spent = [], 0.0
    while spent < seconds or len(found) < 5:
        other.send("again")
        pair = other.recv(), update.seconds()
        found.append(pair)
        spent += sum(pair)
    return found


def serve(orders):
    """The other process: makes what it is told to on one core, and times it.

    Args:
        orders: connection on which (optimizer, case) starts a measurement,
            "again" asks for the time of one more update, and None ends.
    """
    use_cores(1)
    update = None
    while (order := orders.recv()) is not None:
        if order != "again":
            who, case = order
            update = made(who, CASES[case])
        orders.send(update.seconds())
