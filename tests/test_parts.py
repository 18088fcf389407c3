"""Safe operations, segments and meta-parameters, used by the equations."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import RuleConfig
from hrnn_opt.model import slots
from hrnn_opt.rule import (
    hierarchy,
    meta_parameters,
    numerics,
    step_length,
)
from hrnn_opt.rule.segments import NARROW, Segments
from tests.test_equations import assert_close, constant, normal


def derivatives(function, x):
    with tf.GradientTape() as second:
        second.watch(x)
        with tf.GradientTape() as first:
            first.watch(x)
            y = function(x)
        dy = first.gradient(y, x)
    ddy = second.gradient(dy, x, unconnected_gradients="zero")
    return np.stack([y, dy, ddy], axis=-1)


@pytest.mark.parametrize(
    ("function", "at_zero", "at_four"),
    [
        (lambda x: numerics.safe_divide(3.0, x), 0, [3 / 4, -3 / 16, 3 / 32]),
        (numerics.safe_sqrt, 0, [2, 1 / 4, -1 / 32]),
        (lambda x: numerics.safe_divide(x, x), 0, [1, 0, 0]),
        (lambda x: numerics.safe_sqrt(x * x), 0, [4, 1, 0]),
    ],
    ids=["divide", "sqrt", "divide by itself", "sqrt of square"],
)
def test_safe_at_zero_up_to_the_second_derivative(function, at_zero, at_four):
    got = derivatives(function, constant(0.0, 4.0))
    assert_close(got[0], at_zero)
    assert_close(got[1], at_four)


def test_linear_and_column():
    kernel, x = normal(3, 2), normal(2, 4, 5)
    wanted = np.einsum("of,fab->oab", kernel, x)
    assert_close(numerics.linear(kernel, x), wanted)
    column = numerics.column(kernel[:, 0], x)
    assert_close(column, np.broadcast_to(kernel[:, :1, None], (3, 1, 5)))
    assert_close(numerics.column(kernel[:, 0], x[0]), kernel[:, :1])


def test_select_goes_through_nested_tuples():
    old = hierarchy.SharedState(constant(1.0, 2.0), None)
    new = hierarchy.SharedState(constant(3.0, math.nan), None)
    (got, nothing), _ = numerics.select(
        tf.constant([True, False]), (new, old.h_tensor), (old, old.h_tensor)
    )
    assert_close(got, [3, 2])
    assert nothing is None


LAYOUTS = [(6, 4, 1), (5,), (1, 1), (4, 2), (192, 64)]


@pytest.mark.parametrize("instances", [(), (3,)], ids=["one", "three"])
@pytest.mark.parametrize("sizes", LAYOUTS, ids=str)
def test_segments(sizes, instances):
    segments = Segments(sizes)
    n, width = sum(sizes), math.gcd(*sizes)
    if len(sizes) > 1 and width < NARROW:
        width = 1
    assert segments.total_size == n
    assert (segments.rows, segments.width) == (n // width, width)
    flat = normal(n, *instances)
    rows = segments.to_rows(flat)
    assert rows.shape == (1, n // width, width, *instances)
    np.testing.assert_array_equal(segments.from_rows(rows), flat)

    x = tf.concat([rows, 2 * rows], axis=0)
    ends = np.cumsum(sizes)
    sums = np.stack(
        [
            np.sum(flat[end - size : end], axis=0)
            for size, end in zip(sizes, ends, strict=True)
        ]
    )
    assert_close(segments.total(x), np.stack([sums, 2 * sums]))
    means = (sums.T / sizes).T
    assert_close(segments.divide_by_sizes(segments.total(rows))[0], means)
    values = normal(2, len(sizes), *instances)
    spread = segments.spread(values) * tf.ones_like(x)
    wanted = np.repeat(values, sizes, axis=1)
    assert_close(tf.reshape(spread, wanted.shape), wanted)


@pytest.mark.parametrize("sizes", [(), (3, 0), (-1,)], ids=str)
def test_empty_tensors_are_refused(sizes):
    with pytest.raises(ValueError, match=r"at least one.*Received: sizes=\("):
        Segments(sizes)


def test_unflatten_lays_arrays_in_order():
    config = RuleConfig()
    shapes = meta_parameters.shapes(config)
    vector = tf.range(meta_parameters.size(config))
    meta = meta_parameters.unflatten(config, vector)
    begin = 0
    for name, shape in shapes.items():
        field, *part = name.split("/")
        array = getattr(meta, field)
        array = getattr(array, part[0]) if part else array
        wanted = np.arange(begin, begin + math.prod(shape)).reshape(shape)
        np.testing.assert_array_equal(array, wanted, name)
        begin += wanted.size
    assert begin == len(vector)


def test_a_feature_that_is_off_has_no_arrays():
    config = RuleConfig(global_rnn=False, shortcut=False)
    vector = meta_parameters.initial_vector(config, 0)
    meta = meta_parameters.unflatten(config, vector)
    off = {name for name, value in meta._asdict().items() if value is None}
    assert off == {
        "global_gru",
        "global_to_param",
        "global_to_tensor",
        "shortcut_kernel",
        "h_global",
    }


def test_seed_decides_the_vector():
    one, same, other = (
        meta_parameters.initial_vector(RuleConfig(), s) for s in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, same)
    assert one.dtype == "float32"
    assert np.any(one != other)


@pytest.mark.parametrize("timescales", [2, 4])
def test_initial_values(timescales):
    config = RuleConfig(timescales=timescales)
    vector = meta_parameters.initial_vector(config, 0)
    meta = meta_parameters.unflatten(config, tf.constant(vector))
    assert np.all(meta.shortcut_kernel == np.float32(-1 / timescales))
    for cell in (meta.param_gru, meta.tensor_gru, meta.global_gru):
        gates, candidate = np.split(cell.bias, [2 * len(cell.bias) // 3])
        assert np.all(gates == np.float32(2.2))
        assert np.all(candidate == 0)
    np.testing.assert_array_equal(meta.logit_bias, np.float32([2.2, 3.2]))
    assert meta.step_momentum == np.float32(3.2)
    for name in ("step_kernel", "step_bias", "attention_offset"):
        assert not np.any(getattr(meta, name)), name
    for h in (meta.h_param, meta.h_tensor, meta.h_global):
        assert np.all(np.abs(h) < 1)
        assert np.ptp(h) > 0.5
    kernel = meta.tensor_gru.input_kernel
    assert abs(np.std(kernel) * 2 * math.sqrt(kernel.shape[1]) - 1) < 0.1


def test_a_step_far_above_the_others_is_shorter():
    """By hand: three tensors, one of which does not move."""
    d_squared = np.array([[4.0, 9.0, 0.0]])
    lengths = np.array([[1.0, 3.0, 0.0]])
    squares = d_squared * np.exp(2 * lengths)
    count = np.array([[30.0, 10.0, 0.0]])
    found = step_length.step_excess(
        *map(tf.constant, (squares, d_squared, count)), 0.7
    )
    # The mean of all moving elements is (30 + 3 * 10) / 40.
    np.testing.assert_allclose(found, [[0, 3 - 1.5 - 0.7, 0]], atol=1e-12)
    still = step_length.step_excess(*[tf.zeros([1, 2])] * 3, 0.7)
    np.testing.assert_array_equal(still, [[0, 0]])


def test_steps_of_wide_tensors_are_shorter():
    """By the square root of the number of inputs, from `wide_inputs` on."""
    found = step_length.wide_share([1, 64, 65, 256, 6400], 64.0)
    np.testing.assert_allclose(found, [1, 1, (64 / 65) ** 0.5, 0.5, 0.1])
    assert np.all(step_length.wide_share([1, 10**6], 0.0) == 1)


@pytest.mark.parametrize(
    ("shape", "name", "count"),
    [
        ((), "scale", 1),
        ((7,), "bias", 1),
        ((300, 8), "kernel", 300),
        ((3, 3, 40, 8), "kernel", 360),
        ((12, 4, 9), "kernel", 48),
        ((300, 8), "embeddings", 1),
        ((300, 8), "position_embedding", 1),
    ],
)
def test_inputs_are_counted_as_by_initializers(shape, name, count):
    variable = keras.Variable(np.zeros(shape), name=name)
    assert slots.inputs(variable) == count
    if len(shape) > 1 and "embedding" not in name:
        values = keras.initializers.LecunUniform(0)(shape)
        assert np.max(np.abs(values)) == pytest.approx(
            (3 / count) ** 0.5, rel=0.05
        )
