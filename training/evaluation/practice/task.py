"""What a task is: a network, its data and its loss."""

import contextlib
import dataclasses
import random
from collections.abc import Callable

import keras
from keras import ops

from training.evaluation.practice.sources import Source

DECISION, FINAL = "decision", "final"
HALVES = (DECISION, FINAL)
"""What a task may be used for: decisions on weights, or the final table."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A Keras network with data of endless minibatches.

    Args:
        name: unique within the suite.
        about: the network and its data, for tables.
        half: one of `HALVES`.
        source: returns the data; it is called when the task is run.
        network: returns a new model. Initializers and dropout are left as
            users leave them, unseeded: `build` seeds them.
        objective: a function of (model, x, y, training): the scalar loss and
            the outputs that accuracy is computed from.
        pictures: the data set that tensorflow-datasets must have prepared
            (`problems.pictures.PREPARED`), if any.
        classifies: whether accuracy is defined: outputs are logits, and `y`
            holds the indices of classes (0 or 1 for one logit).
        compiled: whether XLA compiles training steps, which is faster for some
            networks and slower for others.
        digest: returns a digest of data that differ between machines.
        version: number to be raised with any change that alters the results.
    """

    name: str
    about: str
    half: str
    source: Callable[[], Source]
    network: Callable[[], keras.Model]
    objective: Callable
    pictures: str | None = None
    classifies: bool = False
    compiled: bool = False
    digest: Callable[[], str] = str
    version: int = 1

    def key(self) -> str:
        """A key that tells the task's results apart from those of any other."""
        return f"{self.name} {self.version} {self.digest()}".strip()

    def build(self, seed: int) -> keras.Model:
        """The network, with the initial weights of a seed."""
        with seeded(seed):
            return self.network()


@contextlib.contextmanager
def seeded(seed: int):
    """Seeds Keras's random choices, and restores the generator afterwards.

    Keras draws the seeds of initializers and dropout that were given none from
    Python's global generator.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def supervised(loss: keras.losses.Loss) -> Callable:
    """The objective of an ordinary network: a loss of its outputs.

    Args:
        loss: a function of (y, outputs).
    """

    def objective(model, x, y, training):
        outputs = model(x, training=training)
        return loss(y, outputs), outputs

    return objective


def classification() -> Callable:
    """Cross-entropy of logits, for indices of classes."""
    return supervised(
        keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )


def regression() -> Callable:
    """The mean squared error."""
    return supervised(keras.losses.MeanSquaredError())


def accuracy(outputs, y):
    """The share of correct classes.

    Args:
        outputs: logits, [..., classes], or [..., 1] for two classes.
        y: indices of classes, [...] or, for one logit, [..., 1].
    """
    if outputs.shape[-1] == 1:
        correct = ops.equal(outputs > 0, ops.cast(y, outputs.dtype) > 0.5)
    else:
        guess = ops.argmax(outputs, axis=-1)
        correct = ops.equal(ops.cast(guess, y.dtype), y)
    return ops.mean(ops.cast(correct, "float32"))
