"""Operations that are finite everywhere, as are the derivatives needed.

These are the first and second ones, for `power_slope` only the first.

A guard replaces the argument before the operation, not only the result after
it: the derivative of a discarded branch is multiplied by zero, and zero times
infinity is NaN.
"""

import tensorflow as tf

# Below it a non-negative number counts as zero: its square root's second
# derivative, x^(-3/2), is still finite in float32 here.
TINY = 1e-20


def sqrt(x):
    """Square root of x >= 0; constant (0) below `TINY`."""
    large = x > TINY
    return tf.where(large, tf.sqrt(tf.where(large, x, 1.0)), 0.0)


def power(x, exponent):
    """x^exponent of x >= 0, exponent > 0; constant (0) below `TINY`."""
    large = x > TINY
    return tf.where(large, tf.where(large, x, 1.0) ** exponent, 0.0)


def power_slope(x, exponent):
    """Derivative of `power` in x: exponent x^(exponent - 1), 0 below `TINY`."""
    large = x > TINY
    slope = exponent * tf.where(large, x, 1.0) ** (exponent - 1.0)
    return tf.where(large, slope, 0.0)


def log_mean_cosh(t, axis=-1):
    """log(mean(cosh(t))): never negative, exact near 0, finite far away.

    Near 0 it is log(1 + mean(2 sinh(t/2)^2)), further away the largest exponent
    is factored out first.
    """
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(t), axis, keepdims=True))
    near = largest < 1.0
    small = tf.where(near, t, 0.0)
    close = tf.math.log1p(tf.reduce_mean(2.0 * tf.sinh(small / 2.0) ** 2, axis))
    large = tf.where(near, 0.0, largest)
    wide = tf.where(near, 0.0, t)
    terms = 0.5 * (tf.exp(wide - large) + tf.exp(-wide - large))
    far = tf.squeeze(large, axis) + tf.math.log(tf.reduce_mean(terms, axis))
    return tf.where(tf.squeeze(near, axis), close, far)
