"""Networks without labels: autoencoder, denoising, pairs of pictures."""

import functools

import keras
import numpy as np
from keras import layers, ops

from training.evaluation.practice import pictures
from training.evaluation.practice.sources import Endless, Rows
from training.evaluation.practice.task import (
    DECISION,
    FINAL,
    Task,
    regression,
    supervised,
)
from training.evaluation.rivals import OUTPUT


def _reconstructed() -> Rows:
    """Pictures in [0, 1] that are to be reconstructed."""
    x, _, x_held_out, _ = (
        part for part in pictures.classified("mnist", 14, batch=32)[:4]
    )
    low, high = x.min(), x.max()

    def flat(part):
        return ((part - low) / (high - low)).reshape(len(part), -1)

    x, x_held_out = flat(x), flat(x_held_out)
    return Rows(x, x, x_held_out, x_held_out, batch=32)


def _autoencoder():
    hidden = [
        layers.Dense(units, activation="sigmoid") for units in (96, 32, 96)
    ]
    return keras.Sequential(
        [
            layers.Input((196,)),
            *hidden,
            layers.Dense(196, activation="sigmoid", name=OUTPUT),
        ]
    )


NOISE = 0.2
"""Standard deviation of the noise to be removed; pictures are in [0, 1]."""


def noisy_patches(generator, count, held_out, side=16):
    """Random patches of photographs, with and without noise.

    The right quarter of each photograph is held out.
    """
    photographs = pictures.photographs()
    height, width, _ = photographs[0].shape
    edge = width * 3 // 4
    first, last = (edge, width) if held_out else (0, edge)
    which = generator.integers(0, len(photographs), count)
    rows = generator.integers(0, height - side + 1, count)
    columns = generator.integers(first, last - side + 1, count)
    clean = np.stack(
        [
            photographs[k][r : r + side, c : c + side]
            for k, r, c in zip(which, rows, columns, strict=True)
        ]
    )
    noise = NOISE * generator.normal(size=clean.shape)
    return (clean + noise).astype("float32"), clean


def _denoising():
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(12, 3, padding="same", activation="relu")(inputs)
    skip = x
    x = layers.Conv2D(24, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2D(24, 3, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(
        12, 4, strides=2, padding="same", activation="relu"
    )(x)
    x = layers.Concatenate()([x, skip])
    noise = layers.Conv2D(3, 3, padding="same", name=OUTPUT)(x)
    return keras.Model(inputs, layers.Subtract()([inputs, noise]))


def picture_pairs(generator, count, held_out):
    """Pairs of digits, half of them of one class: ((x, x'), whether equal)."""
    split = pictures.classified("mnist", 14, batch=count)
    x, y = split.held_out() if held_out else (split.x, split.y)
    first = generator.integers(0, len(y), count)
    second = generator.integers(0, len(y), count)
    of_class = _by_class(held_out)
    for k in range(0, count, 2):
        same = of_class[y[first[k]]]
        second[k] = same[generator.integers(0, len(same))]
    equal = (y[first] == y[second]).astype("float32")
    return (x[first], x[second]), equal[:, None]


@functools.lru_cache(maxsize=2)
def _by_class(held_out):
    split = pictures.classified("mnist", 14, batch=1)
    y = split.y_held_out if held_out else split.y
    return [np.flatnonzero(y == k) for k in range(10)]


def _siamese():
    tower = keras.Sequential(
        [
            layers.Input((14, 14, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            # A bias would cancel out.
            layers.Dense(16, use_bias=False, name=OUTPUT),
        ]
    )
    inputs = keras.Input((14, 14, 1)), keras.Input((14, 14, 1))
    apart = layers.Subtract()([tower(x) for x in inputs])
    distance = ops.sqrt(
        ops.sum(ops.square(apart), axis=-1, keepdims=True) + 1e-7
    )
    return keras.Model(inputs, distance)


def contrastive(equal, distance):
    """The loss of Hadsell et al. (2006), with a margin of 1."""
    apart = ops.square(ops.maximum(1 - distance, 0))
    return ops.mean(equal * ops.square(distance) + (1 - equal) * apart)


TASKS = (
    Task(
        name="sigmoid_autoencoder",
        about="sigmoid autoencoder with a plateau, MNIST",
        half=DECISION,
        source=_reconstructed,
        network=_autoencoder,
        pictures="mnist",
        objective=supervised(keras.losses.BinaryCrossentropy()),
    ),
    Task(
        name="denoising",
        about="denoising ConvNet, patches of photographs",
        half=FINAL,
        source=lambda: Endless(noisy_patches, batch=16, held=256),
        network=_denoising,
        objective=regression(),
    ),
    Task(
        name="siamese",
        about="siamese ConvNet, contrastive loss, MNIST",
        half=FINAL,
        source=lambda: Endless(picture_pairs, batch=32),
        network=_siamese,
        pictures="mnist",
        objective=supervised(contrastive),
    ),
)
