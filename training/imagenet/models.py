"""The architectures, from `keras.applications`, from scratch.

They differ from those of the papers: there is no auxiliary head (Inception V3
was trained with one), no weight decay and no dropout before the classifier, and
the initial weights are Keras's.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras

CLASSES = 1000


class Architecture(NamedTuple):
    """One of Keras's constructors."""

    make: Callable
    smallest: int  # minimum width and height of its pictures


MODELS = {
    "inception_v3": Architecture(keras.applications.InceptionV3, 75),
    "resnet50v2": Architecture(keras.applications.ResNet50V2, 32),
    "resnet101v2": Architecture(keras.applications.ResNet101V2, 32),
    "resnet152v2": Architecture(keras.applications.ResNet152V2, 32),
    # Not in the paper: 0.5 million parameters, for quick trials of the program.
    "mobilenet_quarter": Architecture(
        functools.partial(
            keras.applications.MobileNet, alpha=0.25, dropout=0.0
        ),
        32,
    ),
}
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def make(
    name: str,
    image_size: int,
    precision: str = "float32",
    classes: int = CLASSES,
) -> keras.Model:
    """A model from pictures in [-1, 1], [batch, size, size, 3], to logits.

    Its weights are drawn by Keras's generators, so they follow
    `keras.utils.set_random_seed`.

    Args:
        name: name of the architecture.
        image_size: width and height of the pictures.
        precision: Keras's name for a dtype policy.
        classes: number of outputs.

    Raises:
        ValueError: see `check`.
    """
    check(name, image_size, precision)
    # The constructors do not accept a policy.
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        return MODELS[name].make(
            weights=None,
            input_shape=(image_size, image_size, 3),
            classes=classes,
            classifier_activation=None,
        )
    finally:
        keras.config.set_dtype_policy(before)


def check(name: str, image_size: int, precision: str):
    """Checks that there is such a model.

    Raises:
        ValueError: an unknown name or precision, or too small pictures.
    """
    if name not in MODELS:
        raise ValueError(
            f"Argument `name` must be one of {', '.join(MODELS)}. "
            f"Received: name={name!r}"
        )
    if precision not in PRECISIONS:
        raise ValueError(
            f"Argument `precision` must be one of {', '.join(PRECISIONS)}. "
            f"Received: precision={precision!r}"
        )
    smallest = MODELS[name].smallest
    if image_size < smallest:
        raise ValueError(
            f"Argument `image_size` must be at least {smallest} for {name}. "
            f"Received: image_size={image_size}"
        )
