"""Small prepared data sets, written and read by tensorflow-datasets.

They are scikit-learn's digits, enlarged to the size of the real pictures.
"""

import pytest

from problems.data import digits

SHAPES = {
    "mnist": (28, 28, 1),
    "fashion_mnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
}
TRAIN, TEST = 200, 40


def enlarged(x, shape):
    """Pictures of 8 x 8 pixels, as bytes of another shape."""
    factor = -(-shape[0] // 8)
    x = x.repeat(factor, 1).repeat(factor, 2)[:, : shape[0], : shape[1]]
    return (255 * x.repeat(shape[2], 3)).astype("uint8")


def prepare(folder):
    """Writes all of `SHAPES` to a folder, as `tfds build` would."""
    tfds = pytest.importorskip(
        "tensorflow_datasets", reason="needs the extra `data`"
    )
    import tensorflow as tf

    bunch = digits()
    parts = {
        "train": (bunch.x_train[:TRAIN], bunch.y_train[:TRAIN]),
        "test": (bunch.x_test[:TEST], bunch.y_test[:TEST]),
    }
    for name, shape in SHAPES.items():
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="3.0.1",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=shape),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            split_datasets={
                split: tf.data.Dataset.from_tensor_slices(
                    {"image": enlarged(x, shape), "label": y.astype("int64")}
                )
                for split, (x, y) in parts.items()
            },
            data_dir=folder,
        )
    return folder
