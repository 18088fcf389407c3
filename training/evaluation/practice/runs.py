"""One optimizer on one task: traced once, then run with any seed and rate."""

import contextlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from training.engine.compiled import Compiled
from training.evaluation.practice.contenders import Contender
from training.evaluation.practice.sources import minibatches
from training.evaluation.practice.task import Task, accuracy

BLOCK = 50
"""Number of steps of one call; a curve has the mean loss of each block."""

_CHUNK = 256
"""Number of held-out examples whose loss is computed at once."""


class Run(NamedTuple):
    """The result of one run."""

    held_out_loss: float  # at theta, after the last step
    accuracy: float  # on the same examples; NaN where there are no classes
    losses: np.ndarray  # mean minibatch loss of every block, [blocks]

    def numbers(self) -> list[float]:
        """As a flat list of six digits, the inverse of `from_numbers`."""
        numbers = (self.held_out_loss, self.accuracy, *self.losses)
        return [float(f"{x:.6g}") for x in numbers]

    @classmethod
    def from_numbers(cls, numbers) -> "Run":
        """The run whose `numbers` these are."""
        return cls(numbers[0], numbers[1], np.asarray(numbers[2:], float))


def check_steps(steps: int):
    """Checks that a number of steps makes whole blocks.

    Raises:
        ValueError: not a multiple of `BLOCK`, or too few for a score.
    """
    if steps < 2 * BLOCK or steps % BLOCK:
        raise ValueError(
            f"Argument `steps` must be a multiple of {BLOCK} and at least "
            f"{2 * BLOCK}. Received: steps={steps}"
        )


class Trainer:
    """Runs of one task by one optimizer.

    The initial weights and the minibatches of a run depend only on its seed,
    not on the optimizer or its learning rate.

    Args:
        task: what to train.
        source: the task's data.
        contender: the optimizer.
        steps: number of steps of every run, as `check_steps` allows.

    Raises:
        ValueError: see `check_steps`.
    """

    def __init__(self, task: Task, source, contender: Contender, steps: int):
        check_steps(steps)
        self.task, self.source, self.steps = task, source, steps
        self._contender = contender
        self.model = task.build(0)
        self.optimizer = contender.make(steps)
        self.optimizer.build(self.model.trainable_variables)
        # During training the variables may hold the attended point.
        self._at_theta = getattr(
            self.optimizer, "at_theta", contextlib.nullcontext
        )
        self.optimizer.swapped_by_callback = True
        self._initial = [np.array(v) for v in self.optimizer.variables]
        self._block = Compiled(self._steps, xla=task.compiled)
        self.examine = Compiled(self._held_out)

    def gradients(self, x, y):
        """The loss of one minibatch and its gradients, a list."""
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            loss, _ = self.task.objective(self.model, x, y, True)
        return loss, tape.gradient(loss, variables)

    def step(self, x, y):
        """One step on one minibatch; returns its loss before the step."""
        loss, gradients = self.gradients(x, y)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return loss

    def _steps(self, x, y):
        def body(n, losses):
            batch = tf.nest.map_structure(lambda part: part[n], (x, y))
            return n + 1, losses.write(n, self.step(*batch))

        losses = tf.TensorArray(tf.float32, BLOCK, element_shape=())
        _, losses = tf.while_loop(
            lambda n, _: n < BLOCK, body, (0, losses), maximum_iterations=BLOCK
        )
        return losses.stack()

    def _held_out(self, x, y):
        loss, outputs = self.task.objective(self.model, x, y, False)
        correct = accuracy(outputs, y) if self.task.classifies else np.nan
        return loss, correct

    def reset(self, seed: int, rate: float):
        """Resets everything to the start of a run."""
        fresh = self.task.build(seed)
        for variable, value in zip(
            self.model.variables, fresh.variables, strict=True
        ):
            variable.assign(value)
        for variable, value in zip(
            self.optimizer.variables, self._initial, strict=True
        ):
            variable.assign(value)
        self._contender.set_rate(self.optimizer, rate)

    def run(self, seed: int, rate: float) -> Run:
        """One run; it ends where the loss is no longer finite.

        Args:
            seed: seed of the initial weights and of the minibatches.
            rate: the learning rate.
        """
        self.reset(seed, rate)
        losses = np.full(self.steps // BLOCK, np.inf)
        for k in range(len(losses)):
            x, y = minibatches(self.source, seed, k * BLOCK, BLOCK)
            block = self._block(*tf.nest.map_structure(tf.constant, (x, y)))
            mean = np.mean(block.numpy(), dtype=np.float64)
            if not np.isfinite(mean):
                return Run(np.inf, np.nan, losses)
            losses[k] = mean
        return Run(*self._held_out_figures(), losses)

    def _held_out_figures(self):
        x, y = self.source.held_out()
        figures = []
        chunk = min(_CHUNK, len(y))
        with self._at_theta():
            # Whole chunks only: all have one shape.
            for first in range(0, len(y) - chunk + 1, chunk):
                part = tf.nest.map_structure(
                    lambda a, k=first: tf.constant(a[k : k + chunk]), (x, y)
                )
                figures.append([float(f) for f in self.examine(*part)])
        return np.mean(figures, axis=0)
