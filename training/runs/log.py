"""What a run shows of its progress: a CSV, TensorBoard, a progress bar."""

import csv
import pathlib
import time

import tensorflow as tf
from tqdm import tqdm

from training.common import files
from training.engine.meta_step import MetaStatistics

HEADER = ("iteration", "row", "seconds", *MetaStatistics._fields)


class RunLog:
    """Writes `meta_train.csv` and TensorBoard's events into a folder.

    Args:
        folder: folder of the run.
        iteration: meta-iteration at which the run continues; lines from there
            on, whose meta-iterations will be done again, are dropped.
        seconds: time that the run has taken so far.
        limit: seconds that this part of the run may take; None for no limit.
        core_seconds: core-seconds that the run has taken so far.
        core_clock: function that returns the computing time of this part of
            the run; other processes may do the work.
        columns: names of further columns of the CSV.
    """

    def __init__(
        self,
        folder,
        iteration: int,
        seconds: float,
        limit,
        core_seconds: float = 0.0,
        core_clock=time.process_time,
        columns: tuple = (),
    ):
        folder = pathlib.Path(folder)
        self._earlier, self._limit = seconds, limit
        self._core_clock = core_clock
        self._core_start = core_clock() - core_seconds
        self._path = folder / "meta_train.csv"
        self._keep_lines_before(iteration)
        self._file = self._path.open("a", newline="")
        self._csv = csv.writer(self._file)
        if self._file.tell() == 0:
            self._csv.writerow([*HEADER, *columns])
        self._events = tf.summary.create_file_writer(str(folder / "events"))
        self._bar = tqdm(
            total=None if limit is None else round(limit), unit="s",
            bar_format="{desc} {bar} {elapsed}<{remaining}",
        )  # fmt: skip
        self._start = time.monotonic()
        self._inner_steps, self._loss = 0, None

    def _keep_lines_before(self, iteration: int):
        if not self._path.exists():
            return
        header, *lines = self._path.read_text().splitlines() or [""]
        kept = [
            line for line in lines
            if line.partition(",")[0].isdigit()
            and int(line.partition(",")[0]) < iteration
        ]  # fmt: skip
        files.write(self._path, "\n".join([header, *kept]) + "\n")

    @property
    def seconds(self) -> float:
        """Time that the whole run has taken, earlier parts included."""
        return self._earlier + self.elapsed

    @property
    def core_seconds(self) -> float:
        """Computing time of the whole run, without compilation."""
        return self._core_clock() - self._core_start

    @property
    def elapsed(self) -> float:
        """Time of this part of the run."""
        return time.monotonic() - self._start

    def meta_iteration(self, iteration, row, inner_steps, statistics):
        """Writes one meta-iteration to the CSV and shows it.

        Args:
            iteration: its number.
            row: name of the row.
            inner_steps: number of inner steps in it.
            statistics: see `training.engine.meta_step.MetaStatistics`.
        """
        self.line(iteration, row, statistics)
        self.show(iteration, row, inner_steps, statistics)

    def line(self, iteration, row, statistics, more=()):
        """Writes a line of the CSV; `more` are the further columns."""
        values = [f"{value:.5g}" for value in (*statistics, *more)]
        self._csv.writerow([iteration, row, f"{self.seconds:.1f}", *values])

    def show(self, iteration, row, inner_steps, statistics):
        """Updates TensorBoard and the bar; arguments as of `meta_iteration`."""
        self._inner_steps += inner_steps
        old = self._loss
        loss = statistics.meta_loss
        self._loss = loss if old is None else 0.99 * old + 0.01 * loss
        with self._events.as_default(iteration):
            for name in (
                "meta_loss", "final", "step_length", "step_length_low",
                "step_length_high", "sensitivity",
            ):  # fmt: skip
                tf.summary.scalar(f"{name}/{row}", getattr(statistics, name))
            for name in ("norm", "clipped", "dropped", "diverged"):
                tf.summary.scalar(name, getattr(statistics, name))
        self._bar.set_description_str(
            f"meta-iteration {iteration}: meta-loss {self._loss:.3f}, "
            f"{self._inner_steps / max(self.elapsed, 1e-9):,.0f} steps/s",
            refresh=False,
        )
        if self._limit is not None:
            # The bar's position is a time, not a number of iterations.
            self._bar.update(min(round(self.elapsed), self._bar.total)
                             - self._bar.n)  # fmt: skip

    def held_out(self, iteration: int, results: dict):
        """Shows an evaluation on held-out draws: row name to log losses."""
        with self._events.as_default(iteration):
            for row, (own, *_) in results.items():
                tf.summary.scalar(f"held_out/{row}", own)

    def flush(self):
        """Writes everything so far to the disk."""
        self._file.flush()
        self._events.flush()

    def close(self):
        """Closes the files and the bar."""
        self._bar.close()
        self._file.close()
        self._events.close()
