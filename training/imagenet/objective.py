"""What is minimized, and what is told besides."""

import keras
import tensorflow as tf

SMOOTHING = 0.1
"""How far labels are smoothed, as in Szegedy et al. 2015, section 7."""


def loss(labels, logits):
    """Cross-entropy in nats with smoothed labels, [batch].

    With K classes its least value is the entropy of the smoothed labels, 1.01
    nats at K = 1000, and that of the uniform prediction log(K) = 6.91.
    """
    return keras.losses.categorical_crossentropy(
        tf.one_hot(labels, logits.shape[-1]),
        logits,
        from_logits=True,
        label_smoothing=SMOOTHING,
    )


def metrics() -> list[keras.metrics.Metric]:
    """How often the right class is first, or among the first five."""
    return [
        keras.metrics.SparseCategoricalAccuracy(name="top1"),
        keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5"),
    ]
