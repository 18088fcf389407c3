"""The log of the whole cluster, in one CSV and in TensorBoard."""

import concurrent.futures
import csv
import pathlib
import time

import tensorflow as tf

from training.distributed.cluster import listens

HEADER = (
    "seconds", "inner_steps_per_s", "updates_per_s", "staleness_mean",
    "staleness_max", "late", "unusable", "repeated", "workers",
    "coordination",
)  # fmt: skip


class ClusterLog:
    """Logs the rates since the last line, and the counts so far.

    `coordination` is the share of the workers' time in which they did not
    compute: reading, writing, waiting for work, and being absent.

    Args:
        folder: folder of the run; lines are added to `cluster.csv`.
        run: the run, an `AsynchronousRun` that was just pulled.
        addresses: addresses of the workers.
        seconds: time that the run has taken so far.
    """

    def __init__(self, folder, run, addresses, seconds: float = 0.0):
        path = pathlib.Path(folder) / "cluster.csv"
        self._file = path.open("a", newline="")
        self._csv = csv.writer(self._file)
        if self._file.tell() == 0:
            self._csv.writerow(HEADER)
        events = pathlib.Path(folder) / "events" / "cluster"
        self._events = tf.summary.create_file_writer(str(events))
        self._run, self._addresses = run, tuple(addresses)
        self._earlier = seconds
        self._first = self._last = self._now()

    def _now(self) -> tuple:
        run = self._run
        return time.monotonic(), run.state.iteration, run.counters

    def _since(self, earlier) -> dict:
        """Rates since an earlier `_now`."""
        now, iteration, counters = self._now()
        span, updates = now - earlier[0], iteration - earlier[1]
        staleness = counters.staleness - earlier[2].staleness
        busy = counters.seconds - earlier[2].seconds
        share = busy / (span * max(1, len(self._addresses)))
        return {
            "inner_steps_per_s": (counters.inner_steps - earlier[2].inner_steps)
            / span,
            "updates_per_s": updates / span,
            "staleness_mean": staleness / max(1, updates),
            "coordination": max(0.0, 1.0 - share),
        }

    def alive(self) -> int:
        """The number of workers that answer."""
        with concurrent.futures.ThreadPoolExecutor(32) as executor:
            return sum(executor.map(listens, self._addresses))

    def line(self):
        """Writes a line about the time since the last one, after a `pull`."""
        now, iteration, counters = self._now()
        values = self._since(self._last) | {
            "seconds": self._earlier + now - self._first[0],
            "staleness_max": counters.staleness_max,
            "late": counters.late,
            "unusable": counters.unusable,
            "repeated": counters.repeated,
            "workers": self.alive(),
        }
        self._csv.writerow(f"{values[name]:.6g}" for name in HEADER)
        self._file.flush()
        with self._events.as_default(iteration):
            for name in HEADER[1:]:
                tf.summary.scalar(f"cluster/{name}", values[name])
        self._events.flush()
        self._last = self._now()

    def summary(self) -> dict:
        """Numbers of the whole time, for the last line of a program."""
        counters, since = self._run.counters, self._since(self._first)
        return {
            "updates": self._run.state.updates,
            "inner_steps_per_s": round(since["inner_steps_per_s"]),
            "updates_per_s": round(since["updates_per_s"], 2),
            "staleness_mean": round(since["staleness_mean"], 3),
            "staleness_max": counters.staleness_max,
            "dropped": counters.late,
            "unusable": counters.unusable,
            "repeated": counters.repeated,
            "workers": len(self._addresses),
            "coordination": round(since["coordination"], 4),
        }

    def close(self):
        """Closes the files."""
        self._file.close()
        self._events.close()
