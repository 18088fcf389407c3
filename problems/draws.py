"""Stateless random numbers: the same seed gives the same draw.

A seed is an int, or an int32 tensor [2] (what TensorFlow's stateless functions
take), so that a new seed is a new value and never a new trace. TensorFlow's
generator gives other numbers inside XLA than outside of it: a draw repeats
exactly only if it is made in the same way.
"""

import math
import numbers

import tensorflow as tf

# Named, since the default may differ between devices.
ALGORITHM = "philox"


def as_seed(seed):
    """An int or a pair, as the int32 tensor [2] that the functions here take.

    Raises:
        ValueError: the seed is neither an int nor of shape [2].
    """
    if isinstance(seed, numbers.Integral):
        # Both halves, so that seeds beyond 31 bits stay distinct.
        seed = int(seed)
        low, high = seed & 0x7FFFFFFF, (seed >> 31) & 0x7FFFFFFF
        return tf.constant([low, high], tf.int32)
    seed = tf.convert_to_tensor(seed)
    if seed.shape != (2,) or not seed.dtype.is_integer:
        raise ValueError(
            "Argument `seed` must be an int or two integers. "
            f"Received: seed={seed}"
        )
    return tf.cast(seed, tf.int32)


def split(seed, number: int):
    """`number` independent seeds out of one."""
    return tf.unstack(tf.random.split(as_seed(seed), number, alg=ALGORITHM))


def fold(seed, step):
    """The seed of a step: a different one for every integer `step`."""
    return tf.random.fold_in(as_seed(seed), step, alg=ALGORITHM)


def normal(seed, shape):
    """Standard normal numbers."""
    return tf.random.stateless_normal(shape, as_seed(seed), alg=ALGORITHM)


def uniform(seed, shape, low=0.0, high=1.0):
    """Uniform numbers in [low, high)."""
    return tf.random.stateless_uniform(
        shape, as_seed(seed), low, high, alg=ALGORITHM
    )


def log_uniform(seed, shape, low, high):
    """Numbers in [low, high] whose logarithm is uniform."""
    return tf.exp(uniform(seed, shape, math.log(low), math.log(high)))


def integers(seed, shape, low, high):
    """Uniform integers in [low, high)."""
    return tf.random.stateless_uniform(
        shape, as_seed(seed), low, high, tf.int32, alg=ALGORITHM
    )


def signs(seed, shape):
    """Random +1 and -1: 32 of them from one random word, for speed."""
    *lead, last = shape
    words = tf.random.stateless_uniform(
        (*lead, -(-last // 32), 1),
        as_seed(seed),
        minval=None,
        maxval=None,
        dtype=tf.uint32,
        alg=ALGORITHM,
    )
    bits = tf.bitwise.right_shift(words, tf.constant([*range(32)], tf.uint32))
    bits = tf.reshape(bits & 1, (*lead, -1))[..., :last]
    return 1.0 - 2.0 * tf.cast(bits, tf.float32)


def mixed(key, number):
    """A hash of two integers, 0 to 2^31 - 1, for where seeds are too costly.

    The arguments are broadcast. Multiplications and shifts are those of
    Ettinger's "lowbias32".
    """
    word = tf.cast(key, tf.uint32) + tf.cast(number, tf.uint32) * 0x9E3779B9
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, None)):
        word = tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, shift))
        word = word if factor is None else word * factor
    return tf.cast(tf.bitwise.right_shift(word, 1), tf.int32)


def orthogonal(seed, count: int, size: int):
    """Random orthogonal matrices, [count, size, size]."""
    q, r = tf.linalg.qr(normal(seed, (count, size, size)))
    # Without the signs Q would not be uniformly distributed.
    return q * tf.sign(tf.linalg.diag_part(r))[:, None, :]
