"""Properties of a step for every ablation; `test_rule_properties` has more."""

import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import RuleConfig
from hrnn_opt.rule import step as rule
from tests.test_rule import ABLATIONS
from tests.test_rule_properties import (
    SIZES,
    Run,
    assert_close,
    draw_gradients,
    start,
)

SIZE = sum(SIZES)
UNSCALED = ("no input scaling", "nothing")


def values(run):
    """theta, phi and every state field, without those that are switched off."""
    state = run.state
    fields = (run.theta, run.phi, *state.param, *state.shared)
    fields += state.tensors
    return [field.numpy() for field in fields if field is not None]


@pytest.fixture(params=ABLATIONS)
def config(request):
    return RuleConfig(**ABLATIONS[request.param])


def test_non_finite_gradient_changes_nothing(config):
    run = Run(start(), config=config)
    for n, g in enumerate(draw_gradients(4)):
        if n == 2:
            before = values(run)
            run.step(np.where(np.arange(SIZE) == 4, np.nan, g))
            for now, then in zip(values(run), before, strict=True):
                np.testing.assert_array_equal(now, then)
        run.step(g)
    assert run.state.skipped == 1
    assert np.all(np.not_equal(run.theta, before[0]))


def test_instances_side_by_side_are_single_runs(config):
    rates = (0.5, 0.01)
    together = Run(start(2), config=config, lr=rates)
    singles = [Run(start(2)[:, b], config=config, lr=rates[b]) for b in (0, 1)]
    for n, g in enumerate(draw_gradients(4, 2)):
        g[3, 1] = np.inf if n == 2 else g[3, 1]
        together.step(g)
        for b, single in enumerate(singles):
            single.step(g[:, b])
            got = [value[..., b] for value in values(together)]
            assert_close(got, values(single))
    np.testing.assert_array_equal(together.state.skipped, [0, 1])


def test_attended_parameters_are_theta_without_attention(config):
    run = Run(start(), config=config)
    for g in draw_gradients(3):
        run.step(g)
        differ = np.not_equal(run.theta, run.phi)
        if config.negligible:
            # Tensors that do not move in this step are at theta.
            assert np.any(differ)
        else:
            assert np.all(differ) if config.attention else not np.any(differ)


def movements(scales, config, rates):
    """How far a run of 8 steps leads for each pair of a scale and a rate."""
    begin = np.stack([start(dtype="float32")] * len(rates), axis=-1)
    run = Run(begin, config=config, lr=rates)
    for g in draw_gradients(8):
        columns = [scale * g for scale in scales]
        run.step(np.stack(columns, axis=-1).astype("float32"))
    assert np.all([np.all(np.isfinite(v)) for v in values(run)])
    return np.transpose(run.theta.numpy().astype("float64") - begin)


@pytest.mark.parametrize(
    "name", [name for name in ABLATIONS if name not in UNSCALED]
)
def test_scale_of_each_parameter_does_not_matter(name):
    config = RuleConfig(**ABLATIONS[name])
    # From 1e-30 to 1e30 within a tensor; if gradients are compared with
    # others of their tensor, from tensor to tensor.
    scales = np.linspace(-30, 30, len(SIZES) if config.negligible else SIZE)
    scale = 10.0 ** np.random.default_rng(4).permutation(scales)
    if config.negligible:
        scale = np.repeat(scale, SIZES)
    moved, scaled = movements((1.0, scale), config, (0.125, 0.125))
    error = np.max(np.abs(scaled - moved))
    assert error < 1e-3 * np.max(np.abs(moved))


def test_steps_are_proportional_to_the_learning_rate(config):
    # The gradients are given, so the trajectory is linear in the rate.
    rates = (0.125, 0.25, 0.0)
    once, twice, never = movements((1.0,) * 3, config, rates)
    np.testing.assert_allclose(twice, 2 * once, 1e-4, 1e-5)
    assert not np.any(never)


@pytest.mark.parametrize("largest", [1e-37, 3e38])
def test_wildest_gradients_stay_finite(largest):
    run = Run(start(dtype="float32"))
    rng = np.random.default_rng(5)
    for n in range(30):
        sign = rng.choice([-1, 0, 1], SIZE)
        run.step(sign * np.float32(largest if n % 3 else 1.0))
    assert run.state.skipped == 0
    assert np.all([np.all(np.isfinite(v)) for v in values(run)])


@pytest.mark.parametrize("lazy", [False, True])
def test_parameters_may_fall_silent_for_ever(lazy):
    # Their averages pass through the smallest float32 numbers to zero; those
    # of lazy parameters stay.
    step = tf.function(rule.step, jit_compile=True, autograph=False)
    config = RuleConfig(lazy=lazy)
    run = Run(start(dtype="float32"), config=config)
    for g in 1e-36 * draw_gradients(20):
        run.step(g, step)
    silent = values(run)
    for _ in range(100 if lazy else 4000):
        run.step(np.zeros(SIZE), step)
    assert np.all([np.all(np.isfinite(v)) for v in values(run)])
    assert np.any(run.state.param.r) == lazy
    if lazy:
        # Compares all except the Global RNN, which has no state per tensor, and
        # phi, which equals theta when no step is taken.
        pairs = zip(values(run), silent, strict=True)
        assert sum(np.any(a != b) for a, b in pairs) == 2
    before = run.theta.numpy()
    run.step(draw_gradients(1)[0], step)
    assert np.all(np.not_equal(run.theta, before))
