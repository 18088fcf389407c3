"""Training curves of any Keras optimizer, from the same weights and batches.

Losses are those of the whole training set, taken every few steps at the
optimizer's own parameters. They do not count in the measured time.
"""

import contextlib
import time
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Curve(NamedTuple):
    """One run."""

    steps: np.ndarray  # 0, every, 2 every, ...: [points]
    losses: np.ndarray  # of the whole training set, after these steps
    seconds: np.ndarray  # of training so far, without compilation

    def numbers(self) -> list[float]:
        """As a flat list, the inverse of `from_numbers`."""
        return [*self.losses, *self.seconds]

    @classmethod
    def from_numbers(cls, numbers, every: int) -> "Curve":
        """The run whose `numbers` these are."""
        losses, seconds = np.reshape(np.asarray(numbers, float), (2, -1))
        return cls(every * np.arange(len(losses)), losses, seconds)


def batches(rows: int, steps: int, batch: int, seed: int) -> np.ndarray:
    """Rows of every minibatch, [steps, batch]: epoch after epoch, shuffled.

    An epoch's last rows, too few for a batch, are filled up from the next
    epoch.
    """
    random = np.random.default_rng(seed)
    epochs = -(-steps * batch // rows)
    order = [random.permutation(rows) for _ in range(epochs)]
    return np.concatenate(order)[: steps * batch].reshape(steps, batch)


def train(
    model: keras.Model,
    optimizer,
    x,
    y,
    order: np.ndarray,
    every: int,
    chunk: int = 512,
) -> Curve:
    """Trains a classifier that returns logits.

    Args:
        model: model with its initial weights.
        optimizer: a Keras optimizer, not built yet.
        x: training examples, [n, ...].
        y: classes of the examples, [n].
        order: rows of every minibatch, [steps, batch].
        every: steps between losses, which divides the number of steps.
        chunk: number of examples whose loss is computed at once.

    Raises:
        ValueError: `every` does not divide the number of steps.
    """
    steps = len(order)
    if every < 1 or steps % every:
        raise ValueError(
            f"Argument `every` must divide the {steps} steps. "
            f"Received: every={every}"
        )
    x, y = tf.constant(x), tf.constant(y)
    order = tf.constant(order, tf.int32)
    variables = model.trainable_variables
    optimizer.build(variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="sum"
    )

    @tf.function
    def block(first, number):
        for n in tf.range(first, first + number):
            rows = order[n]
            with tf.GradientTape() as tape:
                logits = model(tf.gather(x, rows), training=True)
                loss = loss_of(tf.gather(y, rows), logits)
                loss /= order.shape[1]
            optimizer.apply(tape.gradient(loss, variables), variables)

    @tf.function
    def chunk_loss(first):
        logits = model(x[first : first + chunk], training=False)
        return loss_of(y[first : first + chunk], logits)

    # During training the variables may hold the attended point.
    at_theta = getattr(optimizer, "at_theta", contextlib.nullcontext)

    def full_loss():
        with at_theta():
            parts = [
                float(chunk_loss(tf.constant(first)))
                for first in range(0, len(x), chunk)
            ]
        return sum(parts) / len(x)

    # A first step compiles everything; then all variables are put back.
    losses, seconds = [full_loss()], [0.0]
    state = [*model.variables, *optimizer.variables]
    initial = [np.array(v) for v in state]
    block(tf.constant(0), tf.constant(1))
    for variable, value in zip(state, initial, strict=True):
        variable.assign(value)

    for first in range(0, steps, every):
        start = time.perf_counter()
        block(tf.constant(first), tf.constant(every))
        seconds.append(seconds[-1] + time.perf_counter() - start)
        losses.append(full_loss())
    return Curve.from_numbers([*losses, *seconds], every)
