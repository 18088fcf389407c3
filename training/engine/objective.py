"""Equation 14: what meta-training minimises."""

import math

import tensorflow as tf

LARGEST = 1e30

SOLVED = (1e-6, 1e-4)
"""Losses below the first count as zero, those above the second do not."""


def log_loss(loss, epsilon: float):
    """log(loss + epsilon) of losses [B].

    A loss that is not finite, or beyond 1e30, counts as 1e30 and has no
    derivative: where a problem has diverged, there is nothing to follow.
    """
    usable = loss < LARGEST
    value = tf.math.log(tf.where(usable, loss, 1.0) + epsilon)
    return tf.where(usable, value, math.log(LARGEST))


def average_log_loss(log_losses, first):
    """Equation 14 for every instance, [B].

    Args:
        log_losses: log(l(theta^n) + epsilon) for n = 1..N, [N, B].
        first: log(l(theta^0) + epsilon), [B]; a constant.
    """
    return tf.reduce_mean(log_losses, axis=0) - first


def unsolved(loss):
    """1 for losses [B] above 1e-4, 0 for those below 1e-6; a constant.

    Between the two it rises with the log loss.
    """
    low, high = (math.log(bound) for bound in SOLVED)
    log = tf.math.log(tf.maximum(loss, SOLVED[0]))
    weight = tf.clip_by_value((log - low) / (high - low), 0.0, 1.0)
    # A problem whose loss is NaN is not solved.
    weight = tf.where(tf.math.is_nan(loss), 1.0, weight)
    return tf.stop_gradient(weight)
