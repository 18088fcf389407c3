"""The chief's program: a run from its start, or its checkpoint, to its end."""

import json
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from training.distributed import cluster
from training.distributed.cluster_log import ClusterLog
from training.distributed.run import AsynchronousRun
from training.engine.meta_step import MetaStatistics
from training.runs import loop
from training.runs.folder import RunFolder
from training.runs.loop import Schedule

LINE_SECONDS = 10.0
"""Seconds between two lines of `cluster.csv`."""

COLUMNS = ("staleness", "late", "compute_s", "waiting_s")
"""Columns of `meta_train.csv`, besides those of one machine."""


def train(
    folder: RunFolder,
    run: AsynchronousRun,
    found,
    schedule: Schedule,
    stopped: Callable[[], bool],
):
    """Meta-trains until the time is up or a signal arrives; prints JSON.

    Args:
        folder: folder of the run, prepared.
        run: the run, restored.
        found: the cluster's resolver.
        schedule: when the run saves, evaluates and ends; iterations are
            unrolls, seconds are counted from the first update on.
        stopped: whether to stop.

    Raises:
        tf.errors.OpError: the parameter server is lost.
    """
    begun = time.monotonic()
    for what, names in (("tracing", run.trace()), ("compiling", run.compile())):
        for _ in tqdm(names, total=len(run.rows), desc=what, unit="row"):
            if stopped():
                return
    compile_s = time.monotonic() - begun
    log = folder.log(
        run, schedule.max_seconds, lambda: run.counters.seconds, COLUMNS
    )
    addresses = [a for (job, _), a in cluster.tasks(found).items()
                 if job == "worker"]  # fmt: skip
    whole = ClusterLog(folder.path, run, addresses, log.seconds)

    def advance(iteration):
        finished = run.results(0.2)
        if finished is None:
            return iteration
        written = _write(log, finished, run.steps_of(finished))
        return max(iteration, written)

    run.start()
    loop.train(
        folder, run, log, schedule, advance, stopped,
        refresh=run.pull, jobs=[loop.Job(LINE_SECONDS, whole.line)],
    )  # fmt: skip
    summary = whole.summary() | {"compile_s": round(compile_s, 1)}
    whole.close()
    print(json.dumps(summary), flush=True)


def _write(log, finished, inner_steps: int) -> int:
    """Writes the unrolls' lines; returns the number after the last of them."""
    unrolls, outcome = finished.unrolls, finished.unrolls.outcome
    if not len(unrolls.seconds):
        return 0
    columns = (*outcome[1:], unrolls.seconds, unrolls.waiting)
    for k, number in enumerate(outcome.iteration.astype(int)):
        log.line(
            number,
            finished.row.name,
            [values[k] for values in unrolls.statistics],
            [values[k] for values in columns],
        )
    means = MetaStatistics(*(float(np.mean(x)) for x in unrolls.statistics))
    last = int(outcome.iteration[-1])
    log.show(last, finished.row.name, inner_steps, means)
    return last + 1


LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
"""Errors after the loss of the parameter server: a restart helps."""
