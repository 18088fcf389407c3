"""How long a set takes to compile, at the first and at the second start.

Like each run of `training.meta_train`, each start is a process of its own.
"""

import os
import subprocess
import sys
import tempfile
import time

from tqdm import tqdm

import problems
from training.common import compilation_cache
from training.common.tables import table
from training.engine.compiled import keep_graphs_as_traced
from training.engine.config import MetaConfig
from training.rules.hierarchical import Hierarchical
from training.runs.local import Run

ASKED = 240.0
"""Limit in seconds for the first start, on two cores."""


def run(ensemble: str, only: str | None) -> dict:
    """Prints the table; returns the figures.

    Args:
        ensemble: name of the set.
        only: compile only rows with this in their name; None compiles all.
    """
    figures = {"rows": len(_rows(ensemble, only)), "threads": _cores()}
    with tempfile.TemporaryDirectory() as folder:
        for start in ("first", "second"):
            done = subprocess.run(
                [sys.executable, "-m", __name__, ensemble, only or ""],
                env=os.environ | {"HRNN_OPT_CACHE": folder},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            seconds = float(done.stdout.splitlines()[-1])
            figures[f"{start}_start_s"] = round(seconds, 1)
    print(
        f"Set {ensemble!r}, {figures['rows']} rows, {figures['threads']} "
        f"thread(s); asked on two cores: {ASKED:g} s\n"
    )
    print(
        table(
            ["start", "seconds"],
            [
                [start, f"{figures[f'{start}_start_s']:.1f}"]
                for start in ("first", "second")
            ],
        )
    )
    return figures


def _rows(ensemble: str, only: str | None):
    rows = problems.meta_training_set(ensemble)
    kept = tuple(row for row in rows if not only or only in row.name)
    if not kept:
        raise ValueError(
            "Flag --only must be part of a row's name: "
            f"{[row.name for row in rows]}. Received: {only!r}"
        )
    return kept


def _cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _compile(ensemble: str, only: str) -> float:
    """Seconds that a run needs before its first meta-iteration."""
    compilation_cache.enable()
    config = MetaConfig(ensemble=ensemble)
    keep_graphs_as_traced()
    begun = time.perf_counter()
    started = Run(Hierarchical(), _rows(ensemble, only), config)
    names = started.compile(_cores())
    for _ in tqdm(names, total=len(started.rows), unit="row"):
        pass
    return time.perf_counter() - begun


if __name__ == "__main__":
    print(_compile(*sys.argv[1:]))
