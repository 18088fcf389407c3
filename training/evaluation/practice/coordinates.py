"""Coordinate networks: a photograph in sines, and Burgers' equation."""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from training.evaluation.practice import pictures
from training.evaluation.practice.sources import Endless, Rows
from training.evaluation.practice.task import (
    DECISION,
    FINAL,
    Task,
    regression,
)
from training.evaluation.rivals import OUTPUT

SIDE = 128
"""Side of the square in the middle of the photograph, in pixels."""

OMEGA = 15.0
"""Frequency of the first layer's sines."""


def _pixels() -> Rows:
    """Positions in [-1, 1] and colours; every fifth pixel is held out."""
    image = pictures.photographs()[1]
    top, left = (image.shape[0] - SIDE) // 2, (image.shape[1] - SIDE) // 2
    colours = image[top : top + SIDE, left : left + SIDE].reshape(-1, 3)
    axis = np.linspace(-1, 1, SIDE, dtype="float32")
    places = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    places = places.reshape(-1, 2)
    held = np.arange(len(places)) % 5 == 4
    return Rows(
        places[~held], colours[~held], places[held], colours[held], batch=64
    )


def _sines():
    """As in Sitzmann et al. (2020), with their initial weights."""

    def uniform(limit):
        return keras.initializers.RandomUniform(-limit, limit)

    width = 48
    limit = np.sqrt(6 / width)
    return keras.Sequential(
        [
            layers.Input((2,)),
            layers.Dense(
                width,
                activation=lambda x: ops.sin(OMEGA * x),
                kernel_initializer=uniform(1 / 2),
            ),
            *(
                layers.Dense(
                    width, activation=ops.sin,
                    kernel_initializer=uniform(limit),
                )
                for _ in range(3)
            ),
            layers.Dense(
                3, kernel_initializer=uniform(limit / 4), name=OUTPUT
            ),
        ]
    )  # fmt: skip


VISCOSITY = 0.05


def points(generator, count, held_out):
    """Points (t, x) inside, at the start and at the ends of [0, 1] x [-1, 1].

    Returns:
        Three arrays [count, 2], and u at the start [count, 1].
    """
    t = generator.uniform(size=(3, count))
    x = generator.uniform(-1, 1, size=(3, count))
    t[1] = 0
    x[2] = np.sign(x[2])
    inside, start, ends = np.stack([t, x], axis=-1).astype("float32")
    return (inside, start, ends), -np.sin(np.pi * start[:, 1:])


def _field():
    """u of (t, x)."""
    return keras.Sequential(
        [
            layers.Input((2,)),
            *(layers.Dense(24, activation="tanh") for _ in range(4)),
            layers.Dense(1, name=OUTPUT),
        ]
    )


def burgers(model, x, y, training):
    """Squared residuals of u_t + u u_x = nu u_xx and its boundary conditions.

    Args:
        model: network that gives u at points (t, x).
        x: points inside, at the start, at the ends.
        y: u at the start.
        training: passed to the model.
    """
    inside, start, ends = x
    with tf.GradientTape() as outer:
        outer.watch(inside)
        with tf.GradientTape() as inner:
            inner.watch(inside)
            u = model(inside, training=training)
        first = inner.gradient(u, inside)
        u_t, u_x = first[:, :1], first[:, 1:]
    u_xx = outer.gradient(u_x, inside)[:, 1:]
    residual = u_t + u * u_x - VISCOSITY * u_xx
    parts = (residual, model(start, training=training) - y, model(ends))
    return sum(ops.mean(ops.square(part)) for part in parts), u


TASKS = (
    Task(
        name="sine_network",
        about="sine network, a photograph's pixels",
        half=DECISION,
        source=_pixels,
        network=_sines,
        objective=regression(),
    ),
    Task(
        name="physics_informed",
        about="physics-informed tanh network, Burgers' equation",
        half=FINAL,
        source=functools.partial(Endless, points, batch=32),
        network=_field,
        objective=burgers,
    ),
)
