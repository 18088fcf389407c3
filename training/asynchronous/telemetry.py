"""The whole cluster in one CSV and in TensorBoard."""

import concurrent.futures
import csv
import pathlib
import time

import numpy as np
import tensorflow as tf

from training.asynchronous.cluster import listens

HEADER = (
    "seconds", "inner_steps_per_s", "updates_per_s", "staleness_mean",
    "staleness_max", "late", "unusable", "repeated", "workers",
    "coordination",
)  # fmt: skip


class ClusterTelemetry:
    """Rates between two lines, and counts so far.

    `coordination` is the share of the workers' time in which they did not
    compute: reading, writing, waiting for work, and being away.

    Args:
        folder: of the run; lines are added to `cluster.csv`.
        addresses: of the workers.
        seconds: time that the run has taken so far.
    """

    def __init__(self, folder, addresses, seconds: float = 0.0):
        path = pathlib.Path(folder) / "cluster.csv"
        self._file = path.open("a", newline="")
        self._csv = csv.writer(self._file)
        if self._file.tell() == 0:
            self._csv.writerow(HEADER)
        events = pathlib.Path(folder) / "events" / "cluster"
        self._events = tf.summary.create_file_writer(str(events))
        self._addresses = tuple(addresses)
        self._earlier, self._start = seconds, time.monotonic()
        self._since = self._start
        self._steps, self._busy, self._staleness = 0, 0.0, []
        self.staleness_max, self._sum, self._count = 0, 0.0, 0
        self._all_steps, self._all_busy = 0, 0.0

    def meta_iteration(self, finished):
        """One that is done (`training.asynchronous.run.Finished`)."""
        self._steps += finished.inner_steps
        self._busy += float(finished.unrolls.seconds.sum())
        self._staleness.append(finished.unrolls.outcome.staleness)

    def alive(self) -> int:
        """Workers that answer."""
        with concurrent.futures.ThreadPoolExecutor(32) as executor:
            return sum(executor.map(listens, self._addresses))

    def line(self, iteration: int, tallies):
        """Writes a line about the time since the last one.

        Args:
            iteration: unrolls so far.
            tallies: see `training.asynchronous.parameters.Tallies`.
        """
        now = time.monotonic()
        span, self._since = now - self._since, now
        staleness = np.concatenate([[], *self._staleness])
        self._sum += staleness.sum()
        self._count += staleness.size
        worst = staleness.max(initial=0.0)
        self.staleness_max = max(self.staleness_max, int(worst))
        self._all_steps += self._steps
        self._all_busy += self._busy
        workers = max(1, len(self._addresses))
        values = (
            self._earlier + now - self._start,
            self._steps / span,
            staleness.size / span,
            staleness.mean() if staleness.size else 0.0,
            worst,
            *tallies,
            self.alive(),
            max(0.0, 1.0 - self._busy / (span * workers)),
        )
        self._csv.writerow(f"{value:.6g}" for value in values)
        self._file.flush()
        with self._events.as_default(iteration):
            for name, value in zip(HEADER[1:], values[1:], strict=True):
                tf.summary.scalar(f"cluster/{name}", value)
        self._events.flush()
        self._steps, self._busy, self._staleness = 0, 0.0, []

    def summary(self, tallies) -> dict:
        """Of the whole time, for the last line of a program."""
        span = time.monotonic() - self._start
        workers = max(1, len(self._addresses))
        return {
            "updates": self._count - tallies.late - tallies.unusable,
            "inner_steps_per_s": round(self._all_steps / span),
            "staleness_mean": round(self._sum / max(1, self._count), 3),
            "staleness_max": self.staleness_max,
            "dropped": tallies.late,
            "unusable": tallies.unusable,
            "repeated": tallies.repeated,
            "workers": workers,
            "coordination": round(1 - self._all_busy / (span * workers), 4),
            "seconds": round(span, 1),
        }

    def close(self):
        """Closes the files."""
        self._file.close()
        self._events.close()
