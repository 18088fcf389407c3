"""Stochastic rounding: unbiased, exact where possible, repeatable."""

import ml_dtypes
import numpy as np
import pytest
from keras import ops

from hrnn_opt import backend
from hrnn_opt.model import rounding

STEPS = 4096


def rounded(x, step=0, tensor=0, first=0):
    """A row of numbers as one element's state [F, 1, 1], or [1, 1, n]."""
    x = np.asarray(x, "float32")
    x = x[:, None, None] if x.ndim == 1 else x
    keys = rounding.rounding_keys(
        step, np.array([tensor]), rounding.words(len(x))
    )
    y = rounding.to_bfloat16(ops.convert_to_tensor(x), keys + first)
    assert y.shape == x.shape and "bfloat16" in str(y.dtype)
    return ops.convert_to_numpy(ops.cast(y, "float32")).squeeze()


def neighbours(x):
    """The bfloat16 numbers on both sides of x, the one nearer to 0 first."""
    bits = np.asarray(x, "float32").view("uint32")
    inner = bits & np.uint32(0xFFFF0000)
    outer = np.where(bits == inner, inner, inner + np.uint32(0x10000))
    return inner.view("float32"), outer.view("float32")


def test_it_is_right_in_the_mean():
    """5 sigma of a mean over 4,096 elements, at fractions from 0 to 1."""
    parts = np.array([1e-3, 0.25, 0.5, 0.75, 0.999])
    for size in (1.0, -1.0, 3e-30, -7e20, 1e-3):
        inner, outer = neighbours(np.float32(size) * np.float32(1.001))
        x = (inner + parts * (outer.astype(float) - inner)).astype("float32")
        columns = np.broadcast_to(x[:, None, None], (5, 1, STEPS))
        y = rounded(columns, step=3)
        assert np.all((y == inner) | (y == outer))
        up = np.mean(y == outer, axis=1)
        share = (x.astype(float) - inner) / (outer.astype(float) - inner)
        sigma = np.sqrt(share * (1 - share) / STEPS)
        assert np.all(np.abs(up - share) < 5 * sigma + 2**-16)


def test_what_bfloat16_represents_is_kept():
    rng = np.random.default_rng(0)
    exact = rng.normal(size=500) * 10.0 ** rng.uniform(-30, 30, 500)
    exact = exact.astype(ml_dtypes.bfloat16).astype("float32")
    exact = np.concatenate([exact, [0, -0.0, np.inf, -np.inf, 1, -2]])
    for step in range(20):
        np.testing.assert_array_equal(rounded(exact, step), exact)
    assert np.isnan(rounded([np.nan, 1])[0])


def test_no_finite_number_becomes_infinite():
    largest = np.finfo("float32").max
    y = rounded(np.full((1, 1, STEPS), [largest]))
    assert np.all(np.isfinite(y))
    assert np.all(rounded(np.full((1, 1, STEPS), [-largest])) < -3.3e38)


def bits(**place):
    """Which of 4,096 elements, halfway between two numbers, are rounded up."""
    middle = np.full((2, 1, STEPS), 1 + 2**-8, "float32")
    return rounded(middle, **place) > 1


def test_bits_depend_on_step_tensor_and_element_alone():
    np.testing.assert_array_equal(bits(step=7), bits(step=7))
    one = bits(step=7, tensor=2, first=5)
    later = bits(step=7, tensor=2, first=6)
    # Only the element's number matters, not where its row begins.
    np.testing.assert_array_equal(one[:, 1:], later[:, :-1])
    others = [bits(step=8, tensor=2, first=5), bits(step=7, tensor=3, first=5)]
    for other in (*others, later, one[::-1]):
        # Independent: they agree in half of the cases, to within 5 sigma.
        assert abs(np.mean(one == other) - 0.5) < 5 * 0.5 / np.sqrt(2 * STEPS)


def average(store):
    """2^13 steps of a moving average with decay 0.999 towards 0.7."""

    def body(step, x):
        value = 0.999 * ops.cast(x, "float32") + 0.001 * 0.7
        return store(value, step)

    def loop(x):
        return ops.fori_loop(0, 2**13, body, x)

    start = ops.zeros((1, 1, 1024), "bfloat16")
    end = backend.compile_function(loop)(start)
    return ops.convert_to_numpy(ops.cast(end, "float32"))


def test_a_slow_average_arrives_only_when_rounded_at_random():
    def at_random(x, step):
        keys = rounding.rounding_keys(step, np.array([0]), 1)
        return rounding.to_bfloat16(x, keys)

    def to_nearest(x, step):
        del step
        return ops.cast(x, "bfloat16")

    assert np.max(average(to_nearest)) < 0.3
    arrived = average(at_random)
    assert np.mean(arrived) == pytest.approx(0.7, abs=0.01)
    assert np.std(arrived) < 0.06
