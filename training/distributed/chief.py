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
from training.runs.folder import RunFolder

LINE_SECONDS = 10.0
"""Between two lines of `cluster.csv`."""

COLUMNS = ("staleness", "late", "compute_s", "waiting_s")
"""Of `meta_train.csv`, besides those of one machine."""


def train(
    folder: RunFolder,
    run: AsynchronousRun,
    found,
    max_seconds: float | None,
    max_iterations: int | None,
    save_seconds: float,
    stopped: Callable[[], bool],
    evaluate_seconds: float = 0.0,
):
    """Meta-trains until the time is up or a signal comes; prints JSON.

    Args:
        folder: of the run, prepared.
        run: restored.
        found: the cluster's resolver.
        max_seconds: from the first update on.
        max_iterations: stop at this number of unrolls.
        save_seconds: between checkpoints.
        stopped: whether to stop.
        evaluate_seconds: between held-out evaluations; 0: none.

    Raises:
        tf.errors.OpError: the parameter server is lost.
    """
    begun = time.monotonic()
    names = run.compile()
    for _ in tqdm(names, total=len(run.rows), desc="compiling", unit="row"):
        if stopped():
            return
    compile_s = time.monotonic() - begun
    log = folder.log(run, max_seconds, lambda: run.counters.seconds, COLUMNS)
    addresses = [a for (job, _), a in cluster.tasks(found).items()
                 if job == "worker"]  # fmt: skip
    whole = ClusterLog(folder.path, run, addresses, log.seconds)
    iteration = run.state.iteration
    run.start()
    saved = lined = evaluated = log.elapsed
    while not stopped():
        now = log.elapsed
        if max_seconds and now >= max_seconds:
            break
        if max_iterations and iteration >= max_iterations:
            break
        finished = run.results(0.2)
        if finished is not None:
            iteration = max(
                iteration, _write(log, finished, run.steps_of(finished))
            )
        if now - lined >= LINE_SECONDS:
            run.pull()
            whole.line()
            lined = now
        if now - saved >= save_seconds:
            run.pull()
            folder.save(run, log)
            saved = now
        if evaluate_seconds and now - evaluated >= evaluate_seconds:
            run.pull()
            folder.evaluate(run, log)
            evaluated = log.elapsed
    run.pull()
    whole.line()
    folder.save(run, log)
    if evaluate_seconds and not stopped():
        folder.evaluate(run, log)
    log.close()
    summary = whole.summary() | {"compile_s": round(compile_s, 1)}
    whole.close()
    print(folder.summary(run, log))
    print(json.dumps(summary), flush=True)


def _write(log, finished, inner_steps: int) -> int:
    """The unrolls' lines; returns the number after the last of them."""
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
"""What comes of a lost parameter server: another start helps."""
