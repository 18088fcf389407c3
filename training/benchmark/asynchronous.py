"""Asynchronous meta-training: speed-up by workers, limits of a server."""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import tensorflow as tf

from training.common.tables import table
from training.distributed import cluster, launch
from training.distributed.parameters import DEVICE, ServedParameters, Work
from training.engine import meta_optimizer
from training.engine.config import MetaConfig
from training.research import delays, one_worker, queue_simulation
from training.rules.hierarchical import Hierarchical

CLOSURES = 3000
INNER = 100  # updates in a closure without other work
WORKERS = (10, 100, 1000)


def scaling(seconds: float, ensemble: str, out: pathlib.Path) -> dict:
    """Runs with one and two workers, alternating; medians of the ratios."""
    ratios, results = [], {1: [], 2: []}
    for turn in range(2):
        for workers in (1, 2):
            folder = out / f"workers-{workers}-{turn}"
            done = subprocess.run(
                [
                    sys.executable, "-m", "training.meta_train",
                    f"--train_dir={folder}", f"--ensemble={ensemble}",
                    f"--local_workers={workers}", "--evaluate_seconds=0",
                    f"--max_seconds={seconds}",
                ],
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            found = json.loads(done.stdout.splitlines()[-1])
            results[workers].append(found)
            print(f"{workers} worker(s): {found}", flush=True)
        ratios.append(
            results[2][-1]["inner_steps_per_s"]
            / results[1][-1]["inner_steps_per_s"]
        )
    times = np.genfromtxt(
        out / "workers-1-0" / "meta_train.csv", delimiter=",", names=True,
        dtype=None, encoding=None,
    )["compute_s"]  # fmt: skip
    two = results[2][-1]
    return {
        "scaling_2_workers": round(statistics.median(ratios), 2),
        "inner_steps_per_s_1": results[1][-1]["inner_steps_per_s"],
        "inner_steps_per_s_2": two["inner_steps_per_s"],
        "coordination_1": min(x["coordination"] for x in results[1]),
        "coordination_2": min(x["coordination"] for x in results[2]),
        "staleness_mean_2": two["staleness_mean"],
        "compile_s_2": two["compile_s"],
        "unroll_s": [round(float(x), 4) for x in times],
    }


def ceiling(workers: int = 2) -> dict:
    """Updates per second of a server whose workers do nothing else.

    Returns:
        `closures_per_s` with one update each, `updates_per_s` without the
        coordinator's overhead, and whether no update was lost.
    """
    config = MetaConfig()
    rule = Hierarchical()
    vector = np.asarray(rule.initial_meta(0), np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        flags = [f"--train_dir={folder}", "--strategy=parameter_server"]
        spec, servers = launch.cluster_here(workers, flags, folder / "logs")
        try:
            for task in servers:
                task.start()
            found = cluster.resolver(json.dumps(spec), "chief", 0)
            tf.config.threading.set_inter_op_parallelism_threads(
                cluster.inter_op_threads(found)
            )
            coordinator = cluster.connect(found)
            return _ceiling(config, vector, coordinator)
        finally:
            for task in servers:
                task.end()


def _ceiling(config, vector, coordinator) -> dict:
    parameters = ServedParameters(
        config, meta_optimizer.initial(vector), CLOSURES, None, DEVICE
    )
    gradient = np.full_like(vector, 1e-3)

    def update(slot, k):
        """The part of a meta-iteration that follows the unroll."""
        read, version = parameters.read()
        with tf.control_dependencies([read]):
            work = Work(version, slot, slot, k, 1, tf.zeros((), tf.float64))
        outcome = parameters.apply(tf.constant(gradient), work)
        with tf.control_dependencies(list(outcome)):
            return k + 1

    @tf.function(autograph=False)
    def one(slot):
        return update(slot, tf.constant(0))

    @tf.function(autograph=False)
    def many(slot):
        return tf.while_loop(
            lambda k: k < INNER,
            lambda k: (update(slot, k),),
            (tf.constant(0),),
            parallel_iterations=1,
        )

    def rate(closure, count):
        """Closures per second, after two untimed ones for each worker."""
        for timed in (4, count):
            start = time.perf_counter()
            for slot in range(timed):
                coordinator.schedule(closure, args=(tf.constant(slot),))
            coordinator.join()
        return count / (time.perf_counter() - start)

    closures_per_s = rate(one, CLOSURES)
    updates_per_s = rate(many, 20) * INNER
    total = 4 + CLOSURES + (4 + 20) * INNER
    wanted = meta_optimizer.initial(vector)
    updater = meta_optimizer.Updater(config)
    for _ in range(total):
        wanted = updater(wanted, gradient)
    state, counters = parameters.snapshot()
    exact = state.updates == total and np.allclose(
        state.vector, wanted.vector, rtol=1e-5, atol=1e-6
    )
    return {
        "closures_per_s": round(closures_per_s),
        "updates_per_s": round(updates_per_s),
        "updates": state.updates,
        "nothing_lost": bool(exact),
        "staleness_max": counters.staleness_max,
    }


def many_workers(unroll_s, update_s: float) -> dict:
    """The table of the simulated workers."""
    numbers = len(Hierarchical().initial_meta(0))
    found = [
        queue_simulation.simulate(
            workers, np.asarray(unroll_s), update_s, numbers
        )
        for workers in WORKERS
    ]
    print(
        f"\nSimulated: unrolls of {np.mean(unroll_s):.2f} s on the average, "
        f"{1e3 * update_s:.2f} ms an update, {numbers:,} meta-parameters\n"
    )
    print(
        table(
            ["workers", "updates/s", "MB/s", "staleness", "largest",
             "workers wait", "server busy", "servers"],
            [
                [str(x.workers), f"{x.updates_per_s:.0f}",
                 f"{x.megabytes_per_s:.1f}", f"{x.staleness_mean:.0f}",
                 str(x.staleness_max), f"{x.waiting:.1%}", f"{x.busy:.0%}",
                 str(x.servers)]
                for x in found
            ],
        )
    )  # fmt: skip
    return {x.workers: x._asdict() for x in found}


def late(iterations: int, out: pathlib.Path) -> dict:
    """Learning with stale gradients: the table; picture and CSV in `out`."""
    found = delays.learn(iterations)
    delays.draw(found, out)
    last = {key: float(np.mean(x[-300:])) for key, x in found.items()}
    print("\nMeta-loss at the end of runs whose gradients are late\n")
    print(
        table(
            ["updates late", *(f"meta-rate {rate:g}" for rate in delays.RATES)],
            [
                [str(d), *(f"{last[d, rate]:.2f}" for rate in delays.RATES)]
                for d in delays.DELAYS
            ],
        )
    )
    return {f"{d} late at {rate:g}": round(x, 3)
            for (d, rate), x in last.items()}  # fmt: skip


def curve(updates: int, out: pathlib.Path) -> dict:
    """Learning curves of one worker and of one machine: table, picture, CSV."""
    found = one_worker.learn(updates)
    one_worker.draw(found, out)
    result, lines = {}, []
    for kind in (one_worker.ONE_MACHINE, one_worker.ONE_WORKER):
        runs = [x[:, 1] for (name, _), x in found.items() if name == kind]
        result[kind] = [[round(float(v), 2) for v in x] for x in runs]
        for name, of in (("median", np.median), ("lowest", np.min),
                         ("highest", np.max)):  # fmt: skip
            lines.append([kind, name, *(f"{v:.2f}" for v in of(runs, axis=0))])
    steps = [str(updates * k // one_worker.POINTS)
             for k in range(one_worker.POINTS + 1)]  # fmt: skip
    print(
        f"\nHeld-out log loss after so many updates, {one_worker.SEEDS} seeds\n"
    )
    print(table(["", "", *steps], lines))
    return result


def run(
    seconds: float, ensemble: str, iterations: int, out: str, only: str | None
) -> dict:
    """Prints tables; returns the figures.

    Args:
        seconds: how long each program with workers runs.
        ensemble: name of the set.
        iterations: number of meta-iterations of each training run.
        out: folder for pictures and runs.
        only: one part: scaling, ceiling, late or curve; None runs all.
    """
    parts = ("scaling", "ceiling", "late", "curve")
    if only is not None and only not in parts:
        raise ValueError(
            f"Flag --only must be one of {', '.join(parts)}. Received: {only!r}"
        )
    folder, figures = pathlib.Path(out), {}
    if only in (None, "scaling"):
        figures |= scaling(seconds, ensemble, folder)
    if only in (None, "ceiling"):
        figures["ceiling"] = ceiling()
        unroll_s = figures.pop("unroll_s", [0.5])
        figures["queue_simulation"] = many_workers(
            unroll_s, 1.0 / figures["ceiling"]["updates_per_s"]
        )
    if only in (None, "late"):
        figures["late"] = late(iterations, folder)
    if only in (None, "curve"):
        figures["curve"] = curve(iterations, folder)
    figures.pop("unroll_s", None)
    return figures
