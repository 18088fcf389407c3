"""Labelled pictures by name: MNIST, Fashion-MNIST, CIFAR-10, digits.

All but the digits are read by tensorflow-datasets (extra `data`) from a folder
that it has prepared before. Nothing is downloaded: if a data set is missing, an
error says immediately what to run.
"""

import pathlib

import numpy as np

from problems.data import Split, digits

PREPARED = ("mnist", "fashion_mnist", "cifar10")
"""Names that tensorflow-datasets knows."""

NAMES = ("digits", *PREPARED)


def _datasets():
    """The package, which is slow to import and may be missing."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            "MNIST, Fashion-MNIST and CIFAR-10 need tensorflow-datasets: run "
            f'`pip install "hrnn-opt[data]"` ({error})'
        ) from error
    return tensorflow_datasets


def _version(folder: pathlib.Path) -> tuple:
    return tuple(int(n) for n in folder.name.split(".") if n.isdigit())


def prepared(name: str, data_dir=None) -> pathlib.Path:
    """The folder of the newest prepared version of a data set.

    Args:
        name: one of `PREPARED`.
        data_dir: where tensorflow-datasets keeps its data; None is its own
            default, the environment's TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
        FileNotFoundError: there is no prepared version.
        ImportError: tensorflow-datasets is not installed.
    """
    given = data_dir or _datasets().core.constants.DATA_DIR
    root = pathlib.Path(given).expanduser()
    found = [path.parent for path in root.glob(f"{name}/*/dataset_info.json")]
    if not found:
        option = f" --data_dir={root}" if data_dir else ""
        raise FileNotFoundError(
            f"Data set {name} must be prepared in {root}: run `tfds build "
            f"{name}{option}` online, or name another folder with --data_dir "
            "or TFDS_DATA_DIR. Received: no "
            f"{root / name}/VERSION/dataset_info.json"
        )
    return max(found, key=_version)


def load(name: str, count: int | None = None, data_dir=None) -> Split:
    """Pictures in [0, 1] with a last axis of channels, and their classes.

    Args:
        name: one of `NAMES`.
        count: number of training pictures, and largest number of test pictures:
            the first ones, in an arbitrary order. None stands for all.
        data_dir: see `prepared`; not used for the digits.

    Raises:
        ValueError: the name is unknown, or the count below 1.
        FileNotFoundError: the data set is not prepared.
        ImportError: tensorflow-datasets is not installed.
    """
    if name not in NAMES:
        raise ValueError(
            f"Argument `name` must be one of {', '.join(NAMES)}. "
            f"Received: name={name!r}"
        )
    if count is not None and count < 1:
        raise ValueError(
            f"Argument `count` must be at least 1. Received: count={count}"
        )
    if name == "digits":
        return Split(*(part[:count] for part in digits()))
    folder = prepared(name, data_dir)
    builder = _datasets().builder_from_directory(folder)

    def read(split):
        available = builder.info.splits[split].num_examples
        stop = min(count or available, available)
        examples = builder.as_dataset(f"{split}[:{stop}]", batch_size=-1)
        x = examples["image"].numpy().astype(np.float32) / 255
        return x, examples["label"].numpy().astype(np.int32)

    return Split(*read("train"), *read("test"))
