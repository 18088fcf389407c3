"""The optimizers by name, each with its usual settings."""

from collections.abc import Callable
from typing import NamedTuple

import keras

from hrnn_opt import HierarchicalRNN
from hrnn_opt.keras_optimizer import LEARNING_RATE


class Choice(NamedTuple):
    """How an optimizer is made."""

    make: Callable  # function of learning rate and steps per epoch
    learning_rate: float  # the default


def rmsprop_inception(learning_rate: float, steps_per_epoch: int):
    """RMSProp as Inception V3 was trained (Szegedy et al. 2015, section 8).

    Decay 0.9, epsilon 1.0 (inside the root, as Keras has it, too), learning
    rate 0.045 times 0.94 every two epochs. "Gradient clipping with threshold
    2.0": by the norm of the whole gradient, which is what the work cited there
    for it does (Pascanu et al. 2012).

    It differs from the authors' published code: no momentum, which the paper
    does not mention; the average of squares starts at 0, not 1; with several
    replicas Keras clips the gradient of each before they are summed.
    """
    rate = keras.optimizers.schedules.ExponentialDecay(
        learning_rate,
        decay_steps=2 * max(steps_per_epoch, 1),
        decay_rate=0.94,
        staircase=True,
    )
    return keras.optimizers.RMSprop(
        rate, rho=0.9, epsilon=1.0, global_clipnorm=2.0
    )


def _hrnn(learning_rate, steps_per_epoch):
    del steps_per_epoch
    optimizer = HierarchicalRNN(learning_rate)
    # `training.replicas.Loop` evaluates and saves at theta.
    optimizer.swapped_by_callback = True
    return optimizer


def _plain(make, **settings):
    """A Keras optimizer with a constant learning rate."""
    return lambda rate, steps_per_epoch: make(rate, **settings)


OPTIMIZERS = {
    "hrnn": Choice(_hrnn, LEARNING_RATE),
    "adam": Choice(_plain(keras.optimizers.Adam), 1e-3),
    "rmsprop_inception": Choice(rmsprop_inception, 0.045),
    "rmsprop": Choice(_plain(keras.optimizers.RMSprop), 1e-3),
    "adamw": Choice(_plain(keras.optimizers.AdamW), 1e-3),
    "lion": Choice(_plain(keras.optimizers.Lion), 1e-4),
    "sgd_momentum": Choice(_plain(keras.optimizers.SGD, momentum=0.9), 0.1),
}


def make(
    name: str,
    steps_per_epoch: int,
    learning_rate: float | None = None,
    scale_loss: bool = False,
) -> keras.optimizers.Optimizer:
    """A new optimizer.

    Args:
        name: name of the optimizer.
        steps_per_epoch: number of steps in an epoch, for schedules.
        learning_rate: replaces the default; for "hrnn", the initial rate.
        scale_loss: whether gradients have half precision (float16), so that
            the loss must be scaled.

    Raises:
        ValueError: an unknown name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(
            f"Argument `name` must be one of {', '.join(OPTIMIZERS)}. "
            f"Received: name={name!r}"
        )
    choice = OPTIMIZERS[name]
    if learning_rate is None:
        learning_rate = choice.learning_rate
    optimizer = choice.make(learning_rate, steps_per_epoch)
    if scale_loss:
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
