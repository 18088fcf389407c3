"""Linear models on real features, which are not scaled."""

import functools

import keras
import numpy as np
import sklearn.datasets
from keras import layers

from training.evaluation.practice.sources import Endless
from training.evaluation.practice.task import (
    DECISION,
    FINAL,
    Task,
    regression,
    supervised,
)
from training.evaluation.rivals import OUTPUT

BANDWIDTH = 0.3
"""Size of the noise on drawn rows, in standard deviations of a feature."""


@functools.lru_cache(maxsize=2)
def _table(name: str):
    """Features and targets; every fifth row is held out."""
    load = getattr(sklearn.datasets, f"load_{name}")
    unscaled = {"scaled": False} if name == "diabetes" else {}
    x, y = load(return_X_y=True, **unscaled)
    return x, y[:, None]


def smoothed(name: str, generator, count: int, held_out: bool):
    """Rows of a small table drawn with replacement, with noise on features.

    This gives endless examples of the table's smoothed distribution.

    Args:
        name: name of a data set in scikit-learn.
        generator: the generator of random numbers.
        count: number of rows.
        held_out: whether to take the rows that are held out.
    """
    x, y = _table(name)
    held = np.arange(len(x)) % 5 == 4
    kept = np.flatnonzero(held if held_out else ~held)
    rows = kept[generator.integers(0, len(kept), count)]
    noise = generator.normal(size=(count, x.shape[1]))
    noisy = x[rows] + BANDWIDTH * x.std(axis=0) * noise
    return noisy.astype("float32"), y[rows].astype("float32")


def _linear(inputs):
    return keras.Sequential(
        [layers.Input((inputs,)), layers.Dense(1, name=OUTPUT)]
    )


TASKS = (
    Task(
        name="logistic",
        about="logistic regression, unscaled breast cancer",
        half=DECISION,
        source=lambda: Endless(
            functools.partial(smoothed, "breast_cancer"), batch=32
        ),
        network=lambda: _linear(30),
        objective=supervised(keras.losses.BinaryCrossentropy(from_logits=True)),
        classifies=True,
    ),
    Task(
        name="linear",
        about="linear regression, unscaled diabetes",
        half=FINAL,
        source=lambda: Endless(
            functools.partial(smoothed, "diabetes"), batch=32
        ),
        network=lambda: _linear(10),
        objective=regression(),
    ),
)
