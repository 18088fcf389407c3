"""The chief's part of a run: hands out meta-iterations, gathers results."""

import collections
import concurrent.futures
import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from problems import draws
from problems.ensemble import Row
from training.distributed.meta_iteration import MetaIteration, Unrolls
from training.distributed.parameters import DEVICE, Counters, ServedParameters
from training.engine import meta_optimizer
from training.engine.config import MetaConfig
from training.engine.meta_step import NO_LIMIT
from training.runs import local

BACKLOG = 2
"""Meta-iterations handed out for each worker: one under way, one waiting."""


LOST_WORKER = (tf.errors.UnavailableError, tf.errors.AbortedError)


class Finished(NamedTuple):
    """A finished meta-iteration."""

    row: Row
    unrolls: Unrolls


class Here:
    """A coordinator's interface without a cluster: it does work at once."""

    class _Value(NamedTuple):
        value: object

        def fetch(self):
            return self.value.numpy()

    def schedule(self, function, args):
        """Calls the function."""
        return self._Value(function(*args))


class AsynchronousRun:
    """A meta-training run whose meta-iterations are done by workers.

    Args:
        rule: see `training.rules.base`.
        rows: the set of problems.
        config: the settings.
        coordinator: a `ClusterCoordinator`; None does all work in this process,
            one meta-iteration after another.
        workers: number of its workers.
        max_staleness: see `ServedParameters`.
        limit: the largest number of unrolls of a meta-iteration; for
            measurements.
    """

    def __init__(
        self,
        rule,
        rows: tuple[Row, ...],
        config: MetaConfig,
        coordinator=None,
        workers: int = 1,
        max_staleness: int | None = None,
        limit: int = NO_LIMIT,
    ):
        self.rule, self.rows, self.config = rule, rows, config
        self.workers, self.limit = workers, limit
        self.number = 0
        self._remote = coordinator is not None
        self._coordinator = coordinator or Here()
        vector = np.asarray(rule.initial_meta(config.seed), np.float32)
        self.state = meta_optimizer.initial(vector)
        self.counters = Counters()
        slots = BACKLOG * workers if self._remote else 1
        self.parameters = ServedParameters(
            config, self.state, slots, max_staleness,
            DEVICE if self._remote else None,
        )  # fmt: skip
        self.meta_iterations = {
            row.name: MetaIteration(
                local.meta_step(rule, row, config), self.parameters
            )
            for row in rows
        }
        self._slots = slots
        self._order = threading.Lock()
        self._results = queue.Queue()
        self._stop = threading.Event()
        self._threads = []

    def trace(self) -> Iterator[str]:
        """Traces every row's closure; yields the name of each when done.

        In the rows' order and before anything is computed, as `Run.trace`.
        """
        for row in self.rows:
            with self._scope():
                self.meta_iterations[row.name].traced.get_concrete_function()
            yield row.name

    def compile(self) -> Iterator[str]:
        """Compiles every row on every worker; yields each row's name.

        Each row is compiled on one worker first, then on the others: those of
        the same machine load what has been compiled on it. A worker that fails
        meanwhile compiles later, when it has to. All rows are traced first, if
        they have not been (see `trace`).
        """
        names = list(self.trace())
        unclaimed, done = iter(names), queue.Queue()

        def warm_up(name, worker):
            device = f"/job:worker/task:{worker}" if self._remote else None
            try:
                with self._scope():
                    self.meta_iterations[name].warm_up(device)
            except LOST_WORKER:
                pass
            done.put(name)

        def all_rows(worker):
            own = []
            # One `next` at a time, by the interpreter's lock.
            for name in unclaimed:
                warm_up(name, worker)
                own.append(name)
            for name in names:
                if name not in own:
                    warm_up(name, worker)

        counts = collections.Counter()
        executor = concurrent.futures.ThreadPoolExecutor(self.workers)
        jobs = [executor.submit(all_rows, k) for k in range(self.workers)]
        executor.shutdown(wait=False)
        while sum(counts.values()) < self.workers * len(self.rows):
            try:
                name = done.get(timeout=1.0)
            except queue.Empty:
                for job in jobs:
                    if job.done():
                        job.result()  # Raises what ended it.
                continue
            counts[name] += 1
            if counts[name] == self.workers:
                yield name

    def _scope(self):
        """The scope in which the coordinator calls, and traces, functions."""
        if not self._remote:
            return contextlib.nullcontext()
        return self._coordinator.strategy.scope()

    def start(self):
        """Begins to hand out meta-iterations."""
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._work, args=(slot,), daemon=True)
            for slot in range(self._slots)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, slot: int):
        """Hands out one meta-iteration after another until the run stops."""
        while not self._stop.is_set():
            try:
                # In order, so that one worker does what one process would.
                with self._order:
                    number, self.number = self.number, self.number + 1
                    row = local.choose(self.rows, self.config.seed, number)
                    seed = draws.fold(self.config.seed, number)
                    value = self._coordinator.schedule(
                        self.meta_iterations[row.name].traced,
                        args=(seed, *map(tf.constant, (slot, number,
                                                       self.limit))),
                    )  # fmt: skip
                result = value.fetch()
            except tf.errors.OpError as error:
                self._results.put(error)
                return
            self._results.put(Finished(row, MetaIteration.unpack(result)))

    def results(self, seconds: float) -> Finished | None:
        """The next finished meta-iteration, or None if there is none in time.

        Raises:
            tf.errors.OpError: the parameter server is lost, or a worker has
                failed in a way that another one would, too.
            RuntimeError: a thread of this object has failed.
        """
        try:
            result = self._results.get(timeout=seconds)
        except queue.Empty:
            if self._stop.is_set() or all(t.is_alive() for t in self._threads):
                return None
            raise RuntimeError("Work must be handed out until the run stops; "
                               "a thread ended before.") from None  # fmt: skip
        if isinstance(result, tf.errors.OpError):
            raise result
        return result

    def steps_of(self, finished: Finished) -> int:
        """Inner steps of a meta-iteration."""
        count = self.meta_iterations[finished.row.name].step.count
        segments = int(finished.unrolls.statistics.segments.sum())
        return segments * self.config.segment * count

    def finish(self) -> Iterator[Finished]:
        """Stops handing out work; yields what finishes until all is done."""
        self._stop.set()
        while any(thread.is_alive() for thread in self._threads):
            if found := self.results(0.2):
                yield found
        while found := self.results(0.01):
            yield found

    @property
    def inner_steps(self) -> int:
        """Inner steps behind all updates, at the last `pull`."""
        return self.counters.inner_steps

    def pull(self):
        """Fetches the current state from the server."""
        self.state, self.counters = self.parameters.snapshot()

    def arrays(self, pool: bool = True) -> dict:
        """The same as those of `local.Run`; there is no pool.

        `meta_iterations` counts those of the paper, `iteration` unrolls.
        """
        more = {"state/meta_iterations": self.number} | {
            f"counters/{name}": x for name, x in self.counters._asdict().items()
        }
        return local.state_arrays(self.state, self.counters.inner_steps) | {
            name: np.asarray(value) for name, value in more.items()
        }

    def restore(self, arrays: dict):
        """The inverse of `arrays`, for this kind of run or a local one.

        Raises:
            ValueError: meta-parameters of another size.
        """
        self.state, inner_steps = local.state_of(
            arrays, self.state.vector.shape
        )
        self.number = int(arrays.get("state/meta_iterations", 0))
        found = {
            name: arrays[f"counters/{name}"].item()
            for name in Counters._fields
            if f"counters/{name}" in arrays
        }
        self.counters = Counters(**found | {"inner_steps": inner_steps})
        self.parameters.restore(self.state, self.counters)
