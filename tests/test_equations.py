"""Each equation alone, against numbers worked out by hand or with numpy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import RuleConfig
from hrnn_opt.rule import (
    alignment,
    features,
    hierarchy,
    meta_parameters,
    products,
    readout,
    step_length,
)
from hrnn_opt.rule.gru import GRUParameters, gru

S = 4


def constant(*values):
    return tf.constant(values, "float64")


def normal(*shape):
    return tf.constant(np.random.normal(size=shape))


def assert_close(got, wanted):
    np.testing.assert_allclose(got, wanted, 1e-12, 1e-14)


def average(gradients, logit_g=2.0, logit_lam=3.0):
    """Eqs. 1-3 over steps [steps, n]: g_bar, r, m."""
    n = np.shape(gradients)[-1]
    decay_g, decay_lam = (
        features.decays(tf.fill((1, n), constant(logit)[0]), S)
        for logit in (logit_g, logit_lam)
    )
    g_bar = r = tf.zeros((S, n), "float64")
    for g in gradients:
        g = constant(g)
        first = features.first_gradient(g, r)
        g_bar = features.gradient_average(g, g_bar, decay_g, first)
        r = features.root_mean_square(g, g_bar, r, decay_lam, first)
    return g_bar.numpy(), r.numpy(), features.rescale(g_bar, r).numpy()


def test_each_timescale_is_a_square_root():
    got = features.decays(constant([math.log(3), 0.0]), 4)  # 3/4 and 1/2
    powers = np.array([1, 1 / 2, 1 / 4, 1 / 8])[:, None]
    assert_close(got, np.array([[0.75, 0.5]]) ** powers)
    half_lives = np.log(0.5) / np.log(got)
    assert_close(half_lives[1:] / half_lives[:-1], 2)


def test_decays_stay_inside_zero_and_one_for_any_logit():
    logit = constant([-1e4, -100.0, 100.0, 1e4])
    with tf.GradientTape() as tape:
        tape.watch(logit)
        got = features.decays(logit, S)
    assert np.all((got > 0) & (got <= 1))
    assert np.all(np.isfinite(tape.gradient(got, logit)))


def test_first_gradient_seeds_both_averages():
    g_bar, r, m = average([[-3.0, 0.0, 5e-30]])
    assert_close(g_bar, [[-3, 0, 5e-30]] * S)
    assert_close(r, [[3, 0, 5e-30]] * S)
    assert_close(m, [[-1, 0, 1]] * S)


def test_late_first_gradient_is_like_an_early_one():
    early, late = [[2.0], [1.0]], [[0.0], [0.0], [2.0], [1.0]]
    for a, b in zip(average(early), average(late), strict=True):
        assert_close(a, b)


def test_averages_of_the_second_gradient():
    # Decays 1/2 and 3/4 at the shortest scale; gradients 4, then 2.
    g_bar, r, m = average([[4.0], [2.0]], 0.0, math.log(3))
    assert_close(g_bar[0], 3)  # (4 + 2) / 2
    assert_close(r[0], math.sqrt(0.75 * 16 + 0.25 * 9))  # the new average
    assert_close(m[0], 3 / math.sqrt(14.25))
    d_g, d_lam = math.sqrt(1 / 2), math.sqrt(3 / 4)
    assert_close(g_bar[1], d_g * 4 + (1 - d_g) * 2)
    assert_close(r[1] ** 2, d_lam * 16 + (1 - d_lam) * g_bar[1] ** 2)


def test_gradient_of_zero_after_the_first_is_averaged():
    g_bar, r, _ = average([[4.0], [0.0]], 0.0, 0.0)
    assert_close(g_bar[0], 2)
    assert_close(r[0], math.sqrt(0.5 * 16 + 0.5 * 4))


@pytest.mark.parametrize("g", [-7.0, 1e-200, 1e200])
def test_constant_gradient_is_rescaled_to_one(g):
    g_bar, r, m = average([[g]] * 30)
    assert_close(g_bar, g)
    assert_close(r, abs(g))
    assert_close(m, np.sign(g))


class NumpyOps:
    """Keeps numbers below 1e-38, as GPUs do and TensorFlow's CPU does not."""

    def __getattr__(self, name):
        return getattr(np, name)

    def stop_gradient(self, x):
        return x


@pytest.mark.parametrize("size", [5e-39, 2e-39, 1e-42])
@pytest.mark.parametrize("g", [0, 1], ids=["silent", "seen again"])
def test_subnormal_averages_stay_finite(monkeypatch, size, g):
    monkeypatch.setattr(features, "ops", NumpyOps())
    old, decay = np.full((S, 1), size, "float32"), np.float32(0.9)
    g = g * old[:1]
    first = features.first_gradient(g, old)
    g_bar = features.gradient_average(g, old, decay, first)
    r = features.root_mean_square(g, g_bar, old, decay, first)
    assert np.all(r <= np.float32(1.01 * size + 1e-44))


def test_largest_magnitude_fades():
    largest = constant(0.0, 3.0)
    largest = features.largest_magnitude(constant(2.0, 2.0), largest)
    assert_close(largest, [2.0, 2.9997])
    for _ in range(10_000):
        largest = features.largest_magnitude(constant(0.0, 1.5), largest)
    assert_close(largest, [2.0 * 0.9999**10_000, 1.5])


def test_small_gradients_count_as_none():
    g = constant(3.0, -1.0, 0.99, -0.5, 0.0)
    counting = features.without_negligible(g, constant(100.0), 0.01)
    assert_close(counting, [3.0, -1.0, 0.0, 0.0, 0.0])
    # In a tensor that never had a gradient, none counts as small.
    assert_close(features.without_negligible(g, constant(0.0), 0.01), g)


def test_relative_log_magnitude():
    r = constant([1.0, 0.0, 1.0], [math.e, 0.0, 2.0], [1.0, 0.0, 0.0])
    got = features.relative_log_magnitude(r)
    assert_close(got[:, 0], [-2 / 3, 4 / 3, -2 / 3])
    assert_close(got[:, 1:], 0)  # unseen, wholly or at one scale
    r = tf.exp(40 * normal(S, 50))
    got = features.relative_log_magnitude(r)
    np.testing.assert_allclose(np.sum(got, axis=0), 0, atol=1e-12)
    wanted = np.log(r[0] ** 2) - np.mean(np.log(r**2), axis=0)
    assert_close(got[0], wanted)


def test_relative_log_step():
    got = features.relative_log_step(constant([1.0, 4.0]), constant(2.5))
    assert_close(got, [[-1.5, 1.5]])


def test_log_step_is_relative_to_the_old_average():
    eta, eta_bar = step_length.update_log_step(constant(2.0), 0.5, 1.0, 0.75)
    assert_close(eta, 3)
    assert_close(eta_bar, 0.75 * 2 + 0.25 * 3)
    assert_close(step_length.attended_log_step(eta, -0.5), 2.5)


def test_log_steps_stay_near_their_mean():
    old = constant(-9.0, -4.0, 0.0, 6.0, 6.5)
    eta, eta_bar = step_length.update_log_step(old, 1.0, 0.5, 0.75)
    assert_close(eta, [-3.5, -3.5, 0.5, 6.5, 6.5])
    assert_close(eta_bar, [-3.875, -3.875, 0.125, 6.125, 6.125])


def test_tensors_are_lowered_to_their_bound():
    log_step = constant(-3.0, 0.5, 2.0)
    got = step_length.tensor_excess(log_step, constant(0.25), 1.0)
    assert_close(got, [0, 0, 0.75])


def test_growth_is_bounded_more_tightly_with_time():
    log_step, mean = constant(2.0, 2.0, 2.0), constant(1.0, 1.0, 1.5)
    steps = constant(4000.0, 16000.0, 2000.0)
    got = step_length.growth_excess(log_step, mean, steps, 0.25)
    assert_close(got, [0.5, 1 - 0.25 * 1.25, 0])
    zero = constant(0.0)
    assert_close(step_length.growth_excess(zero, zero, zero, 0.25), 0)


def test_what_decays_has_to_fall():
    steps = constant(0.0, 1000.0, 4000.0)
    log_step, mean = constant(0.0, 1.0, 2.0), constant(0.0, 1.0, 2.5)
    got = step_length.growth_excess(log_step, mean, steps, 0.125, 1.0)
    assert_close(got, [0, 0, 0.05])
    got = step_length.growth_excess(log_step, mean, steps, 0.0625, 1.0)
    assert_close(got, [0, 0.5 - 0.3125, 0.175])


def test_average_over_log_time_follows_a_logarithm():
    mean, lags = constant(0.0), []
    for n in range(1, 2001):
        log_step = constant(math.log(n))
        mean = step_length.average_over_log_time(
            mean, log_step, constant(float(n))
        )
        lags.append(float((log_step - mean)[0]))
    assert lags[:2] == [0, 0]
    # Half a nat, at any time.
    np.testing.assert_allclose(lags[1000:], 0.5, atol=2e-3)


def test_rare_elements_catch_up():
    u = constant(1.0, -2.0, 3.0, 0.0)
    steps = constant(20.0), constant(20.0, 5.0, 1.0, 0.0)
    got = step_length.catch_up(u, *steps, constant(1.0), 10.0)
    assert_close(got, [1, -8, 30, 0])
    got = step_length.catch_up(u, *steps, constant(0.5), 10.0)
    assert_close(got, [1, -5, 30, 0])
    assert_close(step_length.catch_up(u, *steps, constant(0.0), 10.0), u)


def test_elements_catch_up_where_most_are_rare():
    moving = constant(0.0, 50.0, 100.0)
    got = step_length.sparsity(moving, constant(100.0))
    assert_close(got, [1, 1 / 16, 0])


def test_step_has_the_root_mean_square_of_its_length():
    d, eta = constant(3.0, -4.0, 0.0), constant(math.log(2))
    unscaled = step_length.unscaled_step(d, eta)
    assert_close(unscaled, [6, -8, 0])
    # The third has seen no gradient: rms(d) = sqrt(25 / 2).
    scale = step_length.step_scale(constant(25.0), constant(2.0), 0.1)
    assert_close(scale, 0.1 / math.sqrt(12.5))
    got = (scale * unscaled).numpy()[:2]
    assert_close(np.sqrt(np.mean(got**2)), 0.1 * 2)


def test_no_direction_is_no_step():
    squares, count = constant(0.0, 0.0), constant(0.0, 5.0)
    assert_close(step_length.step_scale(squares, count, 0.1), 0)


def test_both_moves_start_at_the_decayed_old_theta():
    theta, phi = step_length.move(constant(10.0), 1.0, -2.0, 0.5)
    assert_close([theta, phi], [[6.0], [3.0]])
    theta, phi = step_length.move(constant(10.0), 1.0, None)
    assert_close(theta, 11)
    assert phi is theta


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def plain_gru(p, x, h, bias=0.0):
    u = len(h)
    w, b = np.asarray(p.input_kernel), np.asarray(p.bias)[:, None] + bias
    gate, candidate = np.asarray(p.gate_kernel), np.asarray(p.candidate_kernel)
    z = sigmoid(w[:u] @ x + gate[:u] @ h + b[:u])
    k = sigmoid(w[u : 2 * u] @ x + gate[u:] @ h + b[u : 2 * u])
    c = np.tanh(w[2 * u :] @ x + candidate @ (k * h) + b[2 * u :])
    return z * h + (1 - z) * c


def cell(units, inputs):
    return GRUParameters(
        normal(3 * units, inputs),
        normal(2 * units, units),
        normal(units, units),
        normal(3 * units),
    )


def test_gru():
    p, x, h, bias = cell(3, 2), normal(2, 5), normal(3, 5), normal(9, 1)
    x_, h_, bias_ = x.numpy(), h.numpy(), bias.numpy()
    assert_close(gru(p, x, h), plain_gru(p, x_, h_))
    assert_close(gru(p, x, h, bias), plain_gru(p, x_, h_, bias_))
    # More axes are more columns.
    several = gru(p, tf.reshape(x, (2, 5, 1)), tf.reshape(h, (3, 5, 1)), None)
    assert_close(several[..., 0], gru(p, x, h))


def test_hierarchy():
    config = RuleConfig(param_units=2, tensor_units=3, global_units=5)
    meta = meta_parameters.unflatten(
        config, normal(meta_parameters.size(config))
    )
    shared = hierarchy.SharedState(normal(3, 4), normal(5, 1))
    tensor, top = (value.numpy() for value in shared)
    mean_h_x = normal(2 + config.inputs, 4)
    signals = normal(config.signals, 4)

    joined = products.products(meta)
    bias = meta.tensor_to_param @ tensor + meta.global_to_param @ top
    rows = hierarchy.param_bias(joined, shared)
    assert_close(rows[:-1], bias)
    # What the tensors add to the log lengths of their steps.
    assert_close(rows[-1:], meta.tensor_step_kernel.numpy() @ tensor)
    new = hierarchy.step_shared(joined, shared, mean_h_x, signals)
    from_top = meta.global_to_tensor.numpy() @ top  # the old h_global
    from_top = from_top + meta.signal_kernel.numpy() @ signals.numpy()
    wanted = plain_gru(meta.tensor_gru, mean_h_x.numpy(), tensor, from_top)
    assert_close(new.h_tensor, wanted)
    # The mean of the new h_tensor over all four tensors.
    mean = np.mean(wanted, axis=-1, keepdims=True)
    assert_close(new.h_global, plain_gru(meta.global_gru, mean, top))
    # A tensor without a step keeps its state, and the Global RNN sees that.
    moved = tf.constant([[True, False, True, True]])
    some = hierarchy.step_shared(joined, shared, mean_h_x, signals, moved)
    wanted[:, 1] = tensor[:, 1]
    assert_close(some.h_tensor, wanted)
    mean = np.mean(wanted, axis=-1, keepdims=True)
    assert_close(some.h_global, plain_gru(meta.global_gru, mean, top))


def test_products_of_gradients_and_averages():
    g, r = constant([3.0, -1.0, 5.0, 1e9]), constant([2.0, 0.5, 0.0, 1e-3])
    g_bar = constant([4.0, 1.0, 0.0, -1e9], [2.0, -1.0, 7.0, 1e-3])
    moving = tf.constant([[True, True, False, True]])
    # Only r of the shortest timescale counts; outliers are cut at 100.
    r = tf.concat([r, constant([9.0, 9.0, 9.0, 9.0])], 0)
    wanted = [
        [2.25, 4.0, 0.0, 1e4],
        [3.0, -4.0, 0.0, -1e4],
        [1.5, 4.0, 0.0, 100.0],
        [4.0, 4.0, 0.0, 1e4],
        [1.0, 4.0, 0.0, 1.0],
    ]
    assert_close(alignment.products(g, g_bar, r, moving), wanted)


def test_alignment_of_two_tensors():
    # w = (1, 1, 1, 1), a = (1, 1, 1, -1) / 2; and a tensor without averages.
    sums = constant([4.0, 3.0], [1.0, 0.0], [1.0, 0.0])
    cosine, value, ratio = alignment.alignment(sums, constant([4.0, 3.0]))
    assert_close(cosine, [0.5, 0.0])
    assert_close(value, [np.arcsinh(1.0) / 2, 0.0])
    assert_close(ratio, [np.log(0.5), 0.0])


def test_alignment_is_constant_to_derivatives():
    g, g_bar, r = normal(1, 5), normal(3, 5), tf.abs(normal(3, 5))
    with tf.GradientTape() as tape:
        tape.watch((g, g_bar, r))
        terms = alignment.products(g, g_bar, r, tf.ones((1, 5), tf.bool))
        sums = tf.reduce_sum(terms, axis=-1, keepdims=True)
        signals = alignment.alignment(sums, constant([5.0]))
    gradients = tape.gradient(signals, (g, g_bar, r))
    assert all(x is None or not np.any(x) for x in gradients)


def test_age():
    ages = alignment.age(constant([0.0, 10.0, 1000.0]))
    assert_close(ages[:, 0], [1.0, 1.0, 1.0])
    assert_close(ages[:, 1], [1 / 2, 1 / 1.1, 1 / 1.01])
    assert_close(ages[:, 2], [1 / 101, 1 / 11, 1 / 2])


def test_readout():
    config = RuleConfig(param_units=2, timescales=2)
    meta = meta_parameters.unflatten(
        config, normal(meta_parameters.size(config))
    )._replace(
        logit_kernel=constant([1, 2], [0, -1]),
        logit_bias=constant(0.5, 3),
        direction_kernel=constant([1, 1], [2, 0]),
        shortcut_kernel=constant([-1, 0], [0.5, 1]),
        step_kernel=constant([-1, 4]),
        step_bias=constant(0.25),
    )
    meta = products.products(meta)
    h, m = constant([2], [3]), constant([10], [20])
    assert_close(readout.momentum_logits(meta, h), [[8.5], [0]])
    d, delta_eta = readout.outputs(meta, h, m)
    assert_close(delta_eta, [[10.25]])
    assert_close(d, [[5 - 10], [4 + 25]])
    without = meta._replace(shortcut_kernel=None)
    assert_close(readout.outputs(without, h, m)[0], [[5], [4]])
