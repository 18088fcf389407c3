"""Networks and data that belong to no meta-training set, by name."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras

from problems import pictures
from training.evaluation.rivals import OUTPUT


class Task(NamedTuple):
    """A classifier and its pictures."""

    data: str  # a name of `problems.pictures`
    model: Callable  # function of the pictures' shape and a seed


def _initializers(seed):
    seeds = keras.random.SeedGenerator(seed)
    return lambda: keras.initializers.GlorotUniform(seed=seeds)


def convnet(shape, seed: int, filters=(16, 32), stride: int = 2):
    """Two convolutions of 3 x 3, ReLU, and a dense layer for 10 classes."""
    new = _initializers(seed)
    layers = [
        keras.layers.Conv2D(
            n, 3, strides=stride, activation="relu", kernel_initializer=new()
        )
        for n in filters
    ]
    return keras.Sequential(
        [
            keras.layers.Input(shape),
            *layers,
            keras.layers.Flatten(),
            keras.layers.Dense(10, kernel_initializer=new(), name=OUTPUT),
        ]
    )


def mlp(shape, seed: int, units=(64, 64)):
    """Two hidden layers of ReLUs, and a dense layer for 10 classes."""
    new = _initializers(seed)
    hidden = [
        keras.layers.Dense(n, activation="relu", kernel_initializer=new())
        for n in units
    ]
    return keras.Sequential(
        [
            keras.layers.Input(shape),
            keras.layers.Flatten(),
            *hidden,
            keras.layers.Dense(10, kernel_initializer=new(), name=OUTPUT),
        ]
    )


def gru(shape, seed: int, units: int = 32):
    """A GRU that reads a picture row by row, and a dense layer."""
    new = _initializers(seed)
    rows, columns, colours = shape
    return keras.Sequential(
        [
            keras.layers.Input(shape),
            keras.layers.Reshape((rows, columns * colours)),
            keras.layers.GRU(
                units,
                kernel_initializer=new(),
                recurrent_initializer=keras.initializers.Orthogonal(seed=seed),
            ),
            keras.layers.Dense(10, kernel_initializer=new(), name=OUTPUT),
        ]
    )


UNSEEN = {
    "MNIST ConvNet": Task("mnist", convnet),
    "MNIST MLP": Task("mnist", mlp),
    "Fashion-MNIST ConvNet": Task("fashion_mnist", convnet),
    "CIFAR-10 ConvNet": Task("cifar10", convnet),
}
"""The four tasks of Figure 8a."""

PROFILED = UNSEEN | {
    "digits ConvNet": Task("digits", functools.partial(convnet, stride=1)),
    "digits MLP": Task("digits", mlp),
}
"""The tasks of the profiles; those on the digits need no prepared data."""

TASKS = PROFILED | {"MNIST GRU": Task("mnist", gru)}
"""All tasks."""


@functools.lru_cache(maxsize=1)
def data(name: str, count: int, data_dir) -> pictures.Split:
    """Pictures of a task, cached for its next run."""
    return pictures.load(name, count, data_dir)
