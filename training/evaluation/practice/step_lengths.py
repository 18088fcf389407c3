"""How long each tensor's steps are, and how gradients align with past ones.

This shows fastest what an optimizer does wrong: steps that vanish, grow, or are
too long from the start.
"""

import pathlib
from typing import NamedTuple

import matplotlib
import numpy as np
import tensorflow as tf

from training.common import output
from training.engine.compiled import Compiled
from training.evaluation.practice.runs import BLOCK, Trainer
from training.evaluation.practice.sources import minibatches

DECAY = 0.9
"""Decay of the running average of gradients."""

_TINY = 1e-30


class StepLengths(NamedTuple):
    """Step lengths of one run: arrays [steps, T], and the T tensors' names."""

    step: np.ndarray  # root mean square of the step
    tensor: np.ndarray  # root mean square of the tensor before the step
    alignment: np.ndarray  # cosine of the gradient and the average of past ones
    loss: np.ndarray  # of every minibatch, [steps]
    names: tuple
    ranks: tuple  # number of axes of each tensor

    @property
    def relative(self) -> np.ndarray:
        """Lengths of the steps, relative to the tensors, [steps, T]."""
        return self.step / np.maximum(self.tensor, _TINY)


def measure(trainer: Trainer, seed: int, rate: float) -> StepLengths:
    """One run, measured at every step.

    An optimizer with attention is measured where it takes its gradients.

    Args:
        trainer: trainer of the task and the optimizer.
        seed: seed of the initial weights and of the minibatches.
        rate: the learning rate.
    """
    variables = trainer.model.trainable_variables
    averages = [tf.Variable(tf.zeros(v.shape)) for v in variables]

    def step(x, y):
        before = [tf.identity(v) for v in variables]
        loss, gradients = trainer.gradients(x, y)
        alignments = []
        for gradient, average in zip(gradients, averages, strict=True):
            gradient = tf.convert_to_tensor(gradient)
            alignments.append(_cosine(gradient, average))
            average.assign(DECAY * average + (1 - DECAY) * gradient)
        trainer.optimizer.apply(gradients, variables)
        lengths = [
            _rms(tf.convert_to_tensor(v) - old)
            for v, old in zip(variables, before, strict=True)
        ]
        sizes = [_rms(old) for old in before]
        return tf.stack([lengths, sizes, alignments]), loss

    def block(x, y):
        return tf.map_fn(
            lambda batch: step(*batch),
            (x, y),
            fn_output_signature=(tf.float32, tf.float32),
            parallel_iterations=1,
        )

    trainer.reset(seed, rate)
    steps = Compiled(block, xla=trainer.task.compiled)
    found, losses = [], []
    for first in range(0, trainer.steps, BLOCK):
        batches = minibatches(trainer.source, seed, first, BLOCK)
        part, loss = steps(*tf.nest.map_structure(tf.constant, batches))
        found.append(part.numpy())
        losses.append(loss.numpy())
    return StepLengths(
        *np.concatenate(found).transpose(1, 0, 2),
        np.concatenate(losses),
        tuple(v.path for v in variables),
        tuple(len(v.shape) for v in variables),
    )


def _rms(x):
    return tf.sqrt(tf.reduce_mean(tf.square(x)))


def _cosine(x, y):
    """The cosine of two arrays, 0 where one of them is 0."""
    squares = tf.reduce_sum(x * x) * tf.reduce_sum(y * y)
    return tf.math.divide_no_nan(tf.reduce_sum(x * y), tf.sqrt(squares))


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Running averages over a growing window, [steps, T]."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(0)])
    last = np.arange(1, len(values) + 1)
    first = last - np.maximum(last // 10, 1)
    return (sums[last] - sums[first]) / (last - first)[:, None]


def draw(found: dict[str, StepLengths], title: str, path: pathlib.Path):
    """Writes a picture with a column for each run.

    Lines go from dark to light with a tensor's place in the model; vectors
    (biases, gains) are dashed.

    Args:
        found: step lengths by the name of the optimizer.
        title: title of the picture.
        path: path of the PNG.
    """
    figure, panels = output.page(
        3 * len(found), columns=len(found), width=4.6, height=2.6
    )
    rows = np.reshape(panels, (3, len(found)))
    colours = matplotlib.colormaps["viridis"]
    for column, (name, lengths) in enumerate(found.items()):
        above, middle, below = rows[:, column]
        steps = np.arange(1, len(lengths.loss) + 1)
        count = len(lengths.names)
        alignment = _smoothed(lengths.alignment)
        for t in range(count):
            form = {
                "color": colours(0.9 * t / max(count - 1, 1)),
                "linestyle": "-" if lengths.ranks[t] > 1 else ":",
                "linewidth": 0.9,
            }
            above.plot(steps, lengths.relative[:, t], **form)
            middle.plot(steps, alignment[:, t], **form)
        below.plot(steps, lengths.loss, linewidth=0.5, color="0.4")
        above.set_title(name, fontsize=9)
        above.set_yscale("log")
        above.set_ylim(1e-6, 1)
        middle.set_ylim(-0.6, 1)
        middle.axhline(0, color="0.7", linewidth=0.6)
        below.set_yscale("log")
        for axes in rows[:, column]:
            axes.set_xscale("log")
            axes.grid(True, alpha=0.2)
    for axes, text in zip(
        rows[:, 0],
        ("rms of the step / rms of the tensor",
         "alignment of gradient and past", "minibatch loss"),
        strict=True,
    ):  # fmt: skip
        axes.set_ylabel(text, fontsize=8)
    for axes in rows[2]:
        axes.set_xlabel("step", fontsize=8)
    figure.suptitle(title, fontsize=10)
    output.save(figure, path)


def write_csv(found: dict[str, StepLengths], path: pathlib.Path):
    """Writes the same numbers, at steps 1, 2, 4, 8, ... and the last one."""
    rows = []
    for name, lengths in found.items():
        last = len(lengths.loss) - 1
        chosen = {2**k - 1 for k in range(last.bit_length())} | {last}
        for n in sorted(chosen):
            for t, tensor in enumerate(lengths.names):
                values = (lengths.step, lengths.tensor, lengths.alignment)
                rows.append(
                    [name, n + 1, tensor, *(float(v[n, t]) for v in values)]
                )
    output.write_csv(
        path,
        ["optimizer", "step", "tensor", "rms_step", "rms_tensor", "alignment"],
        rows,
    )
