"""Lengths of meta-training's problems: heavy-tailed (section 4.4)."""

import math

import tensorflow as tf

from problems import draws
from training.engine.config import MetaConfig


def exponential(seed, shape, mean):
    """Exponentially distributed numbers."""
    return -mean * tf.math.log(1.0 - draws.uniform(seed, shape))


def _extra(seed, shape, mean, config: MetaConfig):
    """Exp(mean), or always the mean without `heavy_tailed`."""
    if config.heavy_tailed:
        return exponential(seed, shape, mean)
    return tf.fill(shape, tf.cast(mean, tf.float32))


def segments(seed, config: MetaConfig):
    """Number of segments of an unroll: segment + Exp(mean_steps) steps."""
    extra = _extra(seed, (), config.mean_steps, config) / config.segment
    return 1 + tf.cast(tf.round(extra), tf.int32)


def segments_between(seed, config: MetaConfig):
    """Number of segments without derivatives after an unroll."""
    extra = _extra(seed, (), config.mean_between, config) / config.segment
    return tf.cast(tf.round(extra), tf.int32)


def unrolls(seed, count: int, mean, config: MetaConfig):
    """Number of unrolls of `count` problems: 1 + Exp(mean), rounded."""
    extra = _extra(seed, (count,), mean, config)
    return 1 + tf.cast(tf.round(extra), tf.int32)


def shares(steps, total, horizon_discount: float):
    """Weights of the steps' own derivatives in an unroll's meta-gradient.

    They are 1, then fall to 0 over the last `horizon_discount` of the unroll:
    where gradients are noisy, a shorter step always pays at once, and its cost
    comes after the end (short-horizon bias; Wu et al., 2018).

    Args:
        steps: numbers of the steps in the unroll.
        total: number of steps of the unroll.
        horizon_discount: see `MetaConfig`.
    """
    left = tf.cast(total - steps, tf.float32)
    if not horizon_discount:
        return tf.ones_like(left)
    return tf.minimum(
        1.0, left / (horizon_discount * tf.cast(total, tf.float32))
    )


def mean_unrolls(config: MetaConfig, iteration):
    """The mean number of unrolls at a meta-iteration, a tensor.

    Unlike in the paper, it grows exponentially from `first_mean_unrolls` to
    `mean_unrolls` over `curriculum` meta-iterations.
    """
    done = tf.cast(iteration, tf.float32) / config.curriculum
    done = tf.minimum(done, 1.0)
    first, last = config.first_mean_unrolls, config.mean_unrolls
    return tf.exp((1 - done) * math.log(first) + done * math.log(last))


def rates(seed, count: int, config: MetaConfig):
    """Initial learning rates of `count` problems (section 3.2.4)."""
    return draws.log_uniform(
        seed, (count,), config.lowest_rate, config.highest_rate
    )
