"""Real data that comes with an installed package."""

from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits


class Split(NamedTuple):
    """Pictures in [0, 1] and their classes."""

    x_train: np.ndarray  # [n, height, width, channels]
    y_train: np.ndarray  # [n]
    x_test: np.ndarray
    y_test: np.ndarray


def digits(seed: int = 0) -> Split:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels.

    Args:
        seed: seed of the shuffle before a fifth is set aside as the test part.
    """
    bunch = load_digits()
    order = np.random.default_rng(seed).permutation(len(bunch.target))
    x = (bunch.images[order, :, :, None] / 16).astype("float32")
    y = bunch.target[order].astype("int32")
    test = len(y) // 5
    return Split(x[test:], y[test:], x[:test], y[:test])
