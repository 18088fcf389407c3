"""The order of the pictures, as a function of the seed and the step.

So an interrupted run continues with exactly the pictures it would have seen,
without storing a position: the epoch's order is drawn again, the part that has
been seen is skipped without decoding, and the crop of a picture follows from
its number in the run.
"""

from collections.abc import Callable, Iterable

import tensorflow as tf

from training import replicas
from training.imagenet import pictures

ENDLESS = 2**62


def training_examples(
    records, size: int, seed: int, start: int = 0
) -> tf.data.Dataset:
    """Endless pairs (picture, label).

    Args:
        records: `source.Records`, or a function of a seed with the same
            signature and a `count`.
        size: width and height of the pictures.
        seed: seed of order and crops.
        start: number of examples that were seen before.
    """
    epoch, seen = divmod(start, records.count)
    epochs = tf.data.Dataset.range(epoch, ENDLESS)

    @tf.autograph.experimental.do_not_convert
    def ordered(epoch):
        # tf.data mixes the global seed into others (and fails if it is 0);
        # inside this function it is a constant.
        tf.compat.v1.get_default_graph().seed = 1
        return records(_order(seed, epoch))

    stream = epochs.flat_map(ordered)

    def example(number, record):
        jpeg, label = record
        crop = tf.random.fold_in(_key(seed, 1), number)
        return pictures.for_training(jpeg, size, crop), label

    return (
        stream.skip(seen)
        .enumerate(start)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE)
    )


def _key(seed, purpose: int):
    return tf.random.split(tf.constant([seed, 0], "int64"), 2)[purpose]


def _order(seed, epoch):
    """The seed for the order of an epoch."""
    key = tf.random.fold_in(_key(seed, 0), epoch)
    return tf.random.stateless_uniform(
        (), tf.cast(key, "int64"), 0, 2**62, "int64"
    )


def training_batches(
    strategy: tf.distribute.Strategy,
    records: Callable,
    size: int,
    batch_size: int,
    seed: int,
    step: int,
) -> Iterable:
    """Endless batches for all replicas, starting at a step.

    Args:
        strategy: strategy of the replicas.
        records: function of the number of machines and of this machine's
            number that returns its `source.Records`.
        size: width and height of the pictures.
        batch_size: size of the global batch.
        seed: seed of order and crops.
        step: number of steps taken before.

    Raises:
        ValueError: the replicas cannot share a batch evenly.
    """

    def own(context):
        machines = context.num_input_pipelines
        return training_examples(
            records(machines, context.input_pipeline_id),
            size,
            # Each machine has its own pictures and crops.
            seed * machines + context.input_pipeline_id,
            step * batch_size // machines,
        )

    return replicas.distribute(strategy, own, batch_size)


def validation_batches(
    strategy: tf.distribute.Strategy,
    records: Callable,
    size: int,
    batch_size: int,
) -> Iterable:
    """All validation pictures once; see `training_batches`."""

    def own(context):
        own = records(context.num_input_pipelines, context.input_pipeline_id)
        return own().map(
            lambda jpeg, label: (pictures.for_validation(jpeg, size), label),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    return replicas.distribute(strategy, own, batch_size, drop_remainder=False)
