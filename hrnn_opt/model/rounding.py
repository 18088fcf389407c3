"""Stochastic rounding of float32 to bfloat16: numbers kept in two bytes.

A bfloat16 has the range of a float32 and 8 significant bits. An average with a
decay near 1 moves by less than half of the last bit's value, which rounding to
nearest would undo in every step: the average would never move. Rounding up or
down at random, with the probabilities that make the mean exact, avoids this.

The random bits are a hash of step, tensor and element. So a repeated or resumed
run gives the same numbers, and all replicas, backends and ways to pack a model
into chunks agree, without a generator's state.
"""

import math

import numpy as np
from keras import ops

from hrnn_opt import backend

EXPONENT = 0x7F800000
"""The bits of a float32 that are all set if it is not finite."""

_LOW = 0xFFFF
_GOLDEN = np.int32(-0x61C88647)  # 2^32 / golden ratio, modulo 2^32


def words(count: int) -> int:
    """Number of hashes that `to_bfloat16` needs for `count` numbers each."""
    return math.ceil(count / 2)


def rounding_keys(step, numbers, count: int):
    """Keys of the random bits of a step: [count, T] of int32.

    Args:
        step: number of the step, a scalar.
        numbers: numbers of the tensors, a NumPy array [T].
        count: number of independent keys that a tensor needs.
    """
    step = _hash(ops.cast(step, "int32"))
    tensor = _hash(step + ops.convert_to_tensor(numbers, "int32"))
    number = (np.arange(count)[:, None] * int(_GOLDEN)).astype("int32")
    return _hash(ops.expand_dims(tensor, 0) + ops.convert_to_tensor(number))


def to_bfloat16(x, seeds):
    """Rounds at random to one of the two neighbours; exact in the mean.

    Numbers that bfloat16 can represent are kept, as are infinities and NaN. No
    finite number becomes infinite.

    Args:
        x: [F, R, width] of floats.
        seeds: [words(F), R] of int32: a key, plus the number of the row's
            first element in its tensor.
    """
    column = ops.arange(x.shape[-1], dtype="int32")
    word = _hash(ops.expand_dims(seeds, -1) + column)
    halves = [ops.bitwise_and(word, _LOW), _shifted(word, 16)]
    noise = ops.concatenate(halves, axis=0)[: x.shape[0]]
    bits = backend.bitcast(ops.cast(x, "float32"), "int32")
    # A carry from the bits that are cut off moves up to the next neighbour.
    moved = bits + noise
    finite = ops.not_equal(ops.bitwise_and(moved, EXPONENT), EXPONENT)
    upper = ops.right_shift(ops.where(finite, moved, bits), 16)
    return backend.bitcast(ops.cast(upper, "int16"), "bfloat16")


def _hash(x):
    """A permutation of int32 that mixes all bits.

    The constants are those of Chris Wellons's `lowbias32`.
    """
    x = ops.bitwise_xor(x, _shifted(x, 16)) * np.int32(0x7FEB352D)
    x = ops.bitwise_xor(x, _shifted(x, 15)) * np.int32(0x846CA68B - 2**32)
    return ops.bitwise_xor(x, _shifted(x, 16))


def _shifted(x, count: int):
    """x shifted right, zeros from the left."""
    return ops.bitwise_and(ops.right_shift(x, count), 2 ** (32 - count) - 1)
