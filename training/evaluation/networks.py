"""The optimizer against Adam on networks and real data that are in no set."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import sklearn.datasets

import problems.data
from hrnn_opt.callbacks import AttentionSwap
from problems.neural import digits_convnet, digits_mlp

FLOOR = 1e-4
"""Training losses below this count as this."""

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Adam's learning rates among which the best is found."""


class Target(NamedTuple):
    """A network and its data."""

    model: Callable  # function of a seed
    data: Callable  # returns (x, y)
    loss: Callable  # returns a new Keras loss


def _crossentropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _digits():
    split = problems.data.digits()
    return split.x_train, split.y_train


def _diabetes():
    x, y = sklearn.datasets.load_diabetes(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    return x.astype("float32"), ((y - y.mean()) / y.std()).astype("float32")


def _initializers(seed):
    seeds = keras.random.SeedGenerator(seed)
    return lambda: keras.initializers.GlorotUniform(seed=seeds)


def digits_gru(seed: int = 0) -> keras.Model:
    """A GRU that reads a digit row by row."""
    new = _initializers(seed)
    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Reshape((8, 8)),
            keras.layers.GRU(
                32,
                kernel_initializer=new(),
                recurrent_initializer=keras.initializers.Orthogonal(seed=seed),
            ),
            keras.layers.Dense(10, kernel_initializer=new()),
        ]
    )


def diabetes_mlp(seed: int = 0) -> keras.Model:
    """An MLP with GELU and layer normalization, for regression."""
    new = _initializers(seed)
    layers = [keras.layers.Input((10,))]
    for _ in range(2):
        layers += [
            keras.layers.Dense(64, kernel_initializer=new()),
            keras.layers.LayerNormalization(),
            keras.layers.Activation("gelu"),
        ]
    return keras.Sequential(
        [*layers, keras.layers.Dense(1, kernel_initializer=new())]
    )


TARGETS = {
    "digits ConvNet": Target(digits_convnet, _digits, _crossentropy),
    "digits ReLU MLP": Target(digits_mlp, _digits, _crossentropy),
    "digits GRU": Target(digits_gru, _digits, _crossentropy),
    "diabetes MLP": Target(
        diabetes_mlp, _diabetes, keras.losses.MeanSquaredError
    ),
}


def train(
    target: Target, optimizer, milestones, seed: int, batch: int = 64
) -> list[float]:
    """Losses of the whole training set after `milestones` steps.

    Args:
        target: the network.
        optimizer: not built yet.
        milestones: increasing numbers of steps, multiples of 100.
        seed: seed of the weights and of the order of the data.
        batch: size of the minibatches.
    """
    x, y = target.data()
    model = target.model(seed)
    model.compile(
        optimizer=optimizer, loss=target.loss(), steps_per_execution=100
    )
    random = np.random.default_rng(seed)
    losses, done = [], 0
    for milestone in milestones:
        steps = milestone - done
        # Whole epochs, each in its own order.
        order = np.concatenate(
            [
                random.permutation(len(x))
                for _ in range(-(-steps * batch // len(x)))
            ]
        )[: steps * batch]
        model.fit(
            x[order],
            y[order],
            batch_size=batch,
            shuffle=False,
            verbose=0,
            callbacks=[AttentionSwap()],
        )
        done = milestone
        losses.append(float(model.evaluate(x, y, batch_size=512, verbose=0)))
    return losses


def ratio(own, rival) -> float:
    """Geometric mean of own / rival losses, floored at `FLOOR`."""
    own = np.maximum(np.nan_to_num(own, nan=np.inf), FLOOR)
    rival = np.maximum(np.nan_to_num(rival, nan=np.inf), FLOOR)
    return float(np.exp(np.mean(np.log(own) - np.log(rival))))
