"""Real pictures for the tasks, small enough for one core."""

import functools

import numpy as np
import sklearn.datasets

import problems.pictures
from problems.neural.on_pictures import pooled
from training.evaluation.practice.sources import Rows

COUNT = 20_000
"""Number of training pictures of each data set: more take long to read."""

HELD_OUT = 2_048


@functools.lru_cache(maxsize=4)
def _split(name: str, side: int, data_dir: str | None):
    split = problems.pictures.load(name, COUNT, data_dir)
    x, x_test = (
        pooled(x, side) for x in (split.x_train, split.x_test[:HELD_OUT])
    )
    mean, deviation = x.mean(), x.std()
    return (
        ((x - mean) / deviation).astype(np.float32),
        split.y_train,
        ((x_test - mean) / deviation).astype(np.float32),
        split.y_test[:HELD_OUT],
    )


def classified(
    name: str, side: int, batch: int, data_dir: str | None = None
) -> Rows:
    """Pictures and their classes.

    Args:
        name: name of the data set (`problems.pictures.PREPARED`).
        side: pictures are averaged over squares to this height and width.
        batch: number of pictures of a minibatch.
        data_dir: folder of tensorflow-datasets; None for its own.

    Raises:
        FileNotFoundError: the data set is not prepared.
        ImportError: tensorflow-datasets is not installed.
    """
    return Rows(*_split(name, side, data_dir), batch)


@functools.lru_cache(maxsize=1)
def photographs() -> tuple[np.ndarray, np.ndarray]:
    """The two photographs in scikit-learn, [427, 640, 3] in [0, 1]."""
    images = sklearn.datasets.load_sample_images().images
    return tuple(image.astype(np.float32) / 255 for image in images)
