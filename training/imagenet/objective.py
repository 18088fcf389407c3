"""The loss that is minimized, and the metrics that are reported."""

import keras
import tensorflow as tf

SMOOTHING = 0.1
"""Label smoothing, as in Szegedy et al. 2015, section 7."""


def loss(labels, logits):
    """Cross-entropy in nats with smoothed labels, [batch].

    With K classes its minimum is the entropy of the smoothed labels, 1.01 nats
    at K = 1000; that of a uniform prediction is log(K) = 6.91.
    """
    return keras.losses.categorical_crossentropy(
        tf.one_hot(labels, logits.shape[-1]),
        logits,
        from_logits=True,
        label_smoothing=SMOOTHING,
    )


def metrics() -> list[keras.metrics.Metric]:
    """Top-1 and top-5 accuracy."""
    return [
        keras.metrics.SparseCategoricalAccuracy(name="top1"),
        keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5"),
    ]
