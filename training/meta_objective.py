"""Equation 14: what meta-training minimises."""

import math

import tensorflow as tf

LARGEST = 1e30


def log_loss(loss, epsilon: float):
    """log(loss + epsilon) of losses [B].

    A loss that is not finite, or beyond 1e30, counts as 1e30 and has no
    derivative: where a problem diverged there is nothing to follow.
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


def unsolved(loss, epsilon: float):
    """1 for losses [B] far above epsilon, 0 for those close to it; a constant.

    Between 1e4 and 1e6 times epsilon it rises with the log loss.
    """
    far = tf.math.log(tf.maximum(loss, epsilon) / epsilon)
    low, high = math.log(1e4), math.log(1e6)
    weight = tf.clip_by_value((far - low) / (high - low), 0.0, 1.0)
    # A loss that is not a number is not solved.
    weight = tf.where(tf.math.is_nan(loss), 1.0, weight)
    return tf.stop_gradient(weight)
