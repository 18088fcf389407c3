"""Networks of dense layers, for pictures and tables."""

import functools

import keras
import numpy as np
from keras import layers

from training.evaluation.practice import pictures
from training.evaluation.practice.sources import Endless
from training.evaluation.practice.task import (
    DECISION,
    FINAL,
    Task,
    classification,
    regression,
)
from training.evaluation.rivals import OUTPUT


def _tanh():
    hidden = [layers.Dense(64, activation="tanh") for _ in range(7)]
    return keras.Sequential(
        [
            layers.Input((14, 14, 1)),
            layers.Flatten(),
            *hidden,
            layers.Dense(10, name=OUTPUT),
        ]
    )


def _wide():
    return keras.Sequential(
        [
            layers.Input((14, 14, 1)),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(512, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, name=OUTPUT),
        ]
    )


CATEGORIES = (400, 30, 12)
"""Number of values of each categorical column of `prices`."""

NUMBERS = 6
"""Number of numerical columns."""


@functools.lru_cache(maxsize=1)
def _effects():
    """Effects of categories and numbers on a price, drawn once."""
    draw = np.random.default_rng(19)
    by_category = [draw.normal(size=n).astype("float32") for n in CATEGORIES]
    slopes = 0.5 * draw.normal(size=(CATEGORIES[1], NUMBERS))
    return by_category, slopes.astype("float32")


def prices(generator, count, held_out):
    """Offers with three categories and six numbers, and their log prices.

    The first column's values are as rare as words are (Zipf's law); slopes in
    the numbers depend on the second; the rest is noise.

    Returns:
        Categories [count, 3] and numbers [count, 6]; prices [count, 1].
    """
    by_category, slopes = _effects()
    weights = 1 / np.arange(1, CATEGORIES[0] + 1)
    categories = np.stack(
        [
            generator.choice(CATEGORIES[0], count, p=weights / weights.sum()),
            *(generator.integers(0, n, count) for n in CATEGORIES[1:]),
        ],
        axis=1,
    ).astype("int32")
    x = generator.normal(size=(count, NUMBERS)).astype("float32")
    price = sum(
        effect[column]
        for effect, column in zip(by_category, categories.T, strict=True)
    )
    price = price + np.sum(slopes[categories[:, 1]] * x, axis=1)
    price += np.maximum(x[:, 0] * x[:, 1], 0)
    price += 0.5 * generator.standard_t(5, size=count)
    return (categories, x), price[:, None].astype("float32")


def _tabular():
    categories = keras.Input((len(CATEGORIES),), dtype="int32")
    numbers = keras.Input((NUMBERS,))
    embedded = [
        layers.Flatten()(layers.Embedding(n, 8)(categories[:, k : k + 1]))
        for k, n in enumerate(CATEGORIES)
    ]
    x = layers.Concatenate()([*embedded, numbers])
    for _ in range(2):
        x = layers.Dense(64, activation="relu")(x)
    return keras.Model((categories, numbers), layers.Dense(1, name=OUTPUT)(x))


TASKS = (
    Task(
        name="tanh_mlp",
        about="tanh MLP of 8 layers, MNIST",
        half=DECISION,
        source=lambda: pictures.classified("mnist", 14, batch=32),
        network=_tanh,
        pictures="mnist",
        objective=classification(),
        classifies=True,
    ),
    Task(
        name="dropout_mlp",
        about="MLP of 512 units with dropout, Fashion-MNIST",
        half=FINAL,
        source=lambda: pictures.classified("fashion_mnist", 14, batch=32),
        network=_wide,
        pictures="fashion_mnist",
        objective=classification(),
        classifies=True,
    ),
    Task(
        name="tabular",
        about="MLP on embedded categories and numbers, made prices",
        half=DECISION,
        source=lambda: Endless(prices, batch=32),
        network=_tabular,
        objective=regression(),
    ),
)
