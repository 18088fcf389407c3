"""The records of ImageNet, from tensorflow-datasets' unchanged builder."""

import os
import pathlib

import tensorflow as tf

NAME = "imagenet2012"
EXAMPLES = 1_281_167  # pictures of the real training set
TARS = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")


def default_folder() -> str:
    """The folder in which tensorflow-datasets keeps its data."""
    return os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"


def find(data_dir: str | None = None):
    """The prepared `imagenet2012` of tensorflow-datasets.

    Args:
        data_dir: its folder; None is the default of tensorflow-datasets.

    Raises:
        FileNotFoundError: nothing is prepared there; the message says which
            files are needed where, and which command prepares them.
        ModuleNotFoundError: tensorflow-datasets is not installed.
    """
    folder = pathlib.Path(data_dir or default_folder()).expanduser()
    # Looked up by hand: without a network the builder may take minutes.
    if not list(folder.glob(f"{NAME}/*/dataset_info.json")):
        raise FileNotFoundError(_what_to_do(folder))
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "ImageNet is read by tensorflow-datasets: pip install "
            f'"hrnn-opt[data]". ({error})'
        ) from error
    return tfds.builder(NAME, data_dir=folder)


def _what_to_do(folder: pathlib.Path) -> str:
    manual = folder / "downloads" / "manual"
    missing = [tar for tar in TARS if not (manual / tar).exists()]
    download = (
        f"Put {' and '.join(missing)} (from image-net.org, after registration) "
        f"into {manual}, then run"
        if missing
        else "Run"
    )
    return (
        f"There is no prepared {NAME} in {folder}. {download}:\n"
        f"    tfds build {NAME} --data_dir={folder}\n"
        "or name another folder with --data_dir or TFDS_DATA_DIR."
    )


def count(builder, split: str) -> int:
    """Number of records in a split.

    Raises:
        ValueError: there is no such split.
    """
    try:
        found = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        raise ValueError(
            "Argument `split` must be one of "
            f"{', '.join(builder.info.splits)}, or a part as 'train[:1000]'. "
            f"Received: split={split!r}"
        ) from error
    return found


class Records:
    """One machine's records of a split.

    Args:
        builder: builder of a prepared data set.
        split: "train", "validation", or a part such as "train[:1000]".
        machines: number of machines that share the split; each has an equally
            long run of records and reads no others.
        machine: number of this machine.
        buffer: number of records that are shuffled together in memory; files
            are shuffled, too.

    Raises:
        ValueError: there are fewer records than machines.
    """

    def __init__(self, builder, split, machines=1, machine=0, buffer=4096):
        import tensorflow_datasets as tfds

        self._builder, self._buffer = builder, buffer
        self._split = tfds.even_splits(split, machines, drop_remainder=True)
        self._split = self._split[machine]
        self.count = count(builder, split) // machines
        if self.count < 1:
            raise ValueError(
                f"Split {split!r} must have a record for each machine. "
                f"Received: {machines} machines"
            )

    def __call__(self, seed=None) -> tf.data.Dataset:
        """All records once, in an order that follows from the seed.

        Args:
            seed: an integer, or a tensor of one; None leaves them in order.

        Returns:
            A data set of pairs (bytes of a JPEG, label).
        """
        import tensorflow_datasets as tfds

        shuffled = seed is not None
        records = self._builder.as_dataset(
            split=self._split,
            shuffle_files=shuffled,
            # The pipeline decodes only the crop.
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(
                shuffle_seed=seed,
                shuffle_reshuffle_each_iteration=False,
                try_autocache=False,
            ),
        )
        if shuffled:
            records = records.shuffle(
                self._buffer, seed=seed, reshuffle_each_iteration=False
            )
        return records.map(lambda record: (record["image"], record["label"]))
