"""One training run, from its first step to its last."""

import contextlib
import math
import pathlib
import statistics
import time
from collections.abc import Callable

import tensorflow as tf
from tqdm import tqdm

from hrnn_opt import backend
from training import replicas
from training.imagenet.files import Checkpoints, Curve

COLUMNS = ["step", "seconds", "loss", "top1", "top5"]


class Run:
    """Trains from the newest checkpoint in the folder.

    Args:
        folder: folder of the run.
        loop: a `training.replicas.Loop`, with `objective.metrics`.
        batches: function from the number of steps taken before to training
            batches.
        validation: validation batches, or None.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        loop: replicas.Loop,
        batches: Callable,
        validation=None,
    ):
        self._folder, self._loop = folder, loop
        self._batches, self._validation = batches, validation
        self._chief = replicas.is_chief(loop.strategy)
        if self._chief:
            folder.mkdir(parents=True, exist_ok=True)
        self._checkpoints = Checkpoints(
            folder / "checkpoints", loop.strategy, loop.model, loop.optimizer
        )
        self.step = self._checkpoints.restore()
        self._times = []

    @property
    def step_seconds(self) -> float:
        """Median time of a step, without the first one, which compiles."""
        return statistics.median(self._times[1:] or self._times or [math.nan])

    def train(
        self,
        steps: int,
        log_every: int = 1,
        save_every: int = 1000,
        validate_every: int = 0,
        stop: Callable = lambda: False,
    ):
        """Continues until this many steps have been taken in all.

        Args:
            steps: number of steps of the whole run.
            log_every: number of steps per line of the curve, with their mean
                loss.
            save_every: number of steps between checkpoints; the end is saved,
                too.
            validate_every: number of steps between validations; 0 for none.
            stop: function that is called after every line of the curve, on one
                machine only, and returns whether to end early.
        """
        batches = iter(self._batches(self.step))
        with contextlib.ExitStack() as files:
            write = self._writer(files, steps) if self._chief else _nothing
            while self.step < steps:
                taken = min(log_every - self.step % log_every,
                            steps - self.step)  # fmt: skip
                start = time.perf_counter()
                logs = self._loop.train(batches, taken)
                seconds = time.perf_counter() - start
                before, self.step = self.step, self.step + taken
                self._times.append(seconds / taken)
                write("train", self.step, seconds, logs)
                ends = self.step == steps or stop()
                if _passed(before, self.step, validate_every):
                    write("validation", self.step, 0.0, self.validate())
                if ends or _passed(before, self.step, save_every):
                    self._checkpoints.save(self.step)
                if ends:
                    break

    def validate(self) -> dict[str, float]:
        """Loss and metrics over the validation pictures, at theta."""
        return self._loop.evaluate(self._validation)

    def _writer(self, files: contextlib.ExitStack, steps: int) -> Callable:
        """A function that shows and stores the results of a few steps."""
        curves = {}
        for name in ("train", "validation"):
            path = self._folder / f"{name}.csv"
            validates = self._validation is not None or path.exists()
            if name == "train" or validates:
                curves[name] = Curve(path, COLUMNS, self.step)
                files.callback(curves[name].close)
        events = tf.summary.create_file_writer(str(self._folder / "events"))
        files.callback(events.close)
        bar = files.enter_context(
            tqdm(total=steps, initial=self.step, unit="step")
        )
        last = curves["train"].last
        elapsed = float(last["seconds"]) if last else 0.0

        def write(name, step, seconds, logs):
            nonlocal elapsed
            elapsed += seconds
            curves[name].add(step=step, seconds=elapsed, **logs)
            with events.as_default(step):
                for key, value in logs.items():
                    tf.summary.scalar(f"{name}/{key}", value)
                if name == "train":
                    rate = self._loop.optimizer.learning_rate
                    rate = float(backend.read(rate))
                    tf.summary.scalar("learning_rate", rate)
            if name == "train":
                bar.set_postfix_str(f"loss {logs['loss']:.4f}", refresh=False)
                bar.update(step - bar.n)
            else:
                told = ", ".join(f"{k} {v:.4f}" for k, v in logs.items())
                tqdm.write(f"Validation after {step} steps: {told}")

        return write


def _passed(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]."""
    return every > 0 and now // every > before // every


def _nothing(*unused):
    """The writer of the other machines, which writes nothing."""
