"""Twenty steps of `rule.step` against the reference, every field, every step.

The weights are noisy: in a fresh optimizer step lengths, attention and biases
are zero, which would hide errors in one another.
"""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import RuleConfig
from hrnn_opt.rule import meta_parameters, products
from hrnn_opt.rule import step as rule
from hrnn_opt.rule.config import WITHOUT_LENGTH, WITHOUT_TENSOR_RNN
from hrnn_opt.rule.segments import Segments
from hrnn_opt.rule.state import initial_state
from tests.reference import ReferenceOptimizer

STEPS, SKIPPED = 20, 13
MIXED = ((), (3,), (2, 3), (2, 1, 2, 1))
SHAPES = {
    "one parameter": ((),),
    "mixed": MIXED,  # rows of one parameter
    "rows": ((2,), (4, 1), (2, 1, 2, 2)),  # of two, several per tensor
    "row a tensor": ((3,), (1, 3), (3, 1, 1)),
}
ABLATIONS = {
    "small": {"param_units": 5, "tensor_units": 10, "global_units": 10},
    "two timescales": {"timescales": 2},
    "one timescale": {"timescales": 1, "relative_log_magnitudes": False},
    "no attention": {"attention": False},
    "no input scaling": {"dynamic_input_scaling": False},
    "no log magnitudes": {"relative_log_magnitudes": False},
    "no length": WITHOUT_LENGTH,
    "no relative rate": {"relative_learning_rate": False},
    "no Tensor RNN": WITHOUT_TENSOR_RNN,
    "not lazy": {"lazy": False},
    "no alignment": {"alignment": False},
    "no age": {"age": False},
    "no tensor step": {"tensor_step": False},
    "no signals": {"alignment": False, "age": False},
    "no Global RNN": {"global_rnn": False},
    "no shortcut": {"shortcut": False},
    # For gradients whose scale differs by a hundred from step to step.
    "negligible": {"negligible": 0.05},
    "bounded tensors": {"tensor_spread": 0.01},
    "bounded growth": {"tensor_growth": 1e-5},
    "decay": {"tensor_growth": 1e-5, "tensor_decay": 0.2},
    "both bounds": {"tensor_spread": 0.01, "tensor_growth": 1e-5},
    "catching up": {"catch_up": 3.0, "negligible": 0.05},
    "catching up, no length": {
        "catch_up": 3.0,
        "negligible": 0.05,
        **WITHOUT_LENGTH,
    },
    "bounded steps": {"step_spread": 0.01},
    "bounded steps, catching up": {
        "step_spread": 0.01,
        "catch_up": 3.0,
        "negligible": 0.05,
    },
    "bounded steps, no averages": {
        "step_spread": 0.01,
        "relative_learning_rate": False,
    },
    "wide": {"wide_inputs": 1.5},
    "wide, no length": {"wide_inputs": 1.5, **WITHOUT_LENGTH},
    "eigenbases": {"attention": False, "eigenbasis": 3.0},
    "eigenbases that wait": {
        "attention": False,
        "eigenbasis": 3.0,
        "tensor_growth": 1e3,
        "basis_length": 1e3,
    },
    "eigenbases, short sides": {"attention": False, "eigenbasis": 2.0},
    "unit": {"length_unit": 0.3},
    "unit, no length": {
        "length_unit": 0.3,
        **WITHOUT_LENGTH,
    },
    "nothing": {
        field.name: False
        for field in dataclasses.fields(RuleConfig)
        if field.type is bool
    },
}


def noisy_vector(config, seed=0, dtype="float64"):
    """Flat meta-parameters, none of which is zero."""
    vector = meta_parameters.initial_vector(config, seed)
    noise = np.random.default_rng(seed).normal(0, 0.2, vector.shape)
    return (vector + noise).astype(dtype)


def named_arrays(config, vector):
    """The flat vector as the arrays that the reference reads."""
    shapes = meta_parameters.shapes(config)
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    assert ends[-1] == vector.size
    parts = np.split(vector, ends[:-1])
    return {
        name: part.reshape(shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def draw_gradients(shapes, dtype="float64", steps=STEPS, seed=1):
    """For each step, one array per tensor, with all cases that need care.

    The scales of tensors are decades apart, elements fall silent, the last
    tensor starts at step 5 but its first element never, and step `SKIPPED` is
    not finite.
    """
    rng = np.random.default_rng(seed)
    scales = 10 ** rng.uniform(-4, 4, len(shapes))
    drawn = []
    for step in range(steps):
        size = scales * 10 ** rng.uniform(-1, 1)
        gradients = [
            np.asarray(s * rng.normal(size=shape) * (rng.random(shape) < 0.8))
            for s, shape in zip(size, shapes, strict=True)
        ]
        if len(shapes) > 1:
            gradients[-1] = gradients[-1] * (step >= 5)
            gradients[-1].flat[0] = 0
        if step == SKIPPED:
            gradients[0].flat[-1] = np.nan
        drawn.append([g.astype(dtype) for g in gradients])
    return drawn


def learning_rate(step):
    return 2.0**-3 if step < 10 else 2.0**-5


def state_of_rule(theta, phi, state):
    """Name to value, in the reference's layout: parameters in one row."""
    fields = {"theta": theta[None], "phi": phi[None]}
    for name, value in state.param._asdict().items():
        if value is not None:
            fields[name] = tf.reshape(value, (value.shape[0], -1))
    for name, value in state.shared._asdict().items():
        if value is not None:
            fields[name] = value
    fields |= state.tensors._asdict()
    fields["skipped"] = state.skipped
    return {name: np.asarray(value) for name, value in fields.items()}


def state_of_reference(reference):
    flat = [np.ravel(theta)[None] for theta in reference.theta]
    phi = [np.ravel(phi)[None] for phi in reference.variables]
    fields = {"theta": flat, "phi": phi, "h": reference.h}
    fields |= {"g_bar": reference.g_bar, "r": reference.r}
    if reference.config.catch_up:
        fields["own_steps"] = [steps[None] for steps in reference.own_steps]
    if reference.eta_bar is not None:
        fields["eta_bar"] = [eta_bar[None] for eta_bar in reference.eta_bar]
    fields = {k: np.concatenate(v, axis=1) for k, v in fields.items()}
    if reference.h_tensor is not None:
        fields["h_tensor"] = reference.h_tensor
    if reference.h_global is not None:
        fields["h_global"] = reference.h_global[:, None]
    for name in ("largest", "steps", "log_step", "population", "average"):
        fields[name] = getattr(reference, name)[None]
    return fields | {"skipped": np.asarray(reference.skipped)}


def flatten(arrays):
    return tf.constant(np.concatenate([np.ravel(a) for a in arrays]))


def largest(value, segments):
    """The largest absolute value in an element's tensor (or of all)."""
    size = np.abs(value)
    if size.shape[-1] != segments.total_size:
        return np.max(size)
    ends = np.cumsum(segments.sizes)[:-1]
    parts = np.split(size, ends, axis=-1)
    return np.concatenate([np.full_like(p, p.max()) for p in parts], axis=-1)


def compare(
    config, shapes, step, dtype="float64", rtol=1e-9, atol=1e-12, spread=0.0
):
    """Runs both; `atol` is relative to the field's largest value in its tensor.

    Log step lengths start up to `spread` away from their mean.
    """
    rng = np.random.default_rng(2)
    thetas = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    vector = noisy_vector(config, dtype=dtype)
    arrays = named_arrays(config, vector.astype("float64"))
    reference = ReferenceOptimizer(
        config, arrays, learning_rate, follows_rates=False
    )
    reference.build(thetas)

    segments = Segments(
        [theta.size for theta in thetas],
        [
            int(np.prod(theta.shape[:-1])) if theta.ndim > 1 else 1
            for theta in thetas
        ],
        shapes,
    )
    meta = products.from_vector(config, tf.constant(vector))
    start = flatten(thetas)
    theta = phi = start
    state = initial_state(config, meta, segments)
    if spread:
        reference.eta_bar = [
            rng.uniform(-spread, spread, theta.size) for theta in thetas
        ]
        eta_bar = tf.reshape(
            flatten(reference.eta_bar), state.param.eta_bar.shape
        )
        state = state._replace(param=state.param._replace(eta_bar=eta_bar))
    for n, gradients in enumerate(draw_gradients(shapes, dtype)):
        reference.apply(gradients)
        g, lr = flatten(gradients), tf.constant(learning_rate(n), dtype)
        theta, phi, state = step(
            config, meta, segments, state, theta, phi, g, lr
        )
        got = state_of_rule(theta, phi, state)
        wanted = state_of_reference(reference)
        assert got.keys() == wanted.keys()
        assert got.pop("skipped") == wanted.pop("skipped") == (n >= SKIPPED)
        for name, value in wanted.items():
            assert got[name].dtype == dtype
            error = np.abs(got[name] - value)
            allowed = rtol * np.abs(value) + atol * largest(value, segments)
            assert np.all(error <= allowed), (n, name, np.max(error / allowed))
    still = np.flatnonzero(np.equal(theta, start))
    assert list(still) == (
        [sum(segments.sizes[:-1])] if len(shapes) > 1 else []
    )
    assert np.any(np.not_equal(theta, phi)) == config.attention


@pytest.mark.parametrize("shapes", SHAPES)
def test_eager(shapes):
    compare(RuleConfig(), SHAPES[shapes], rule.step)


def test_step_lengths_far_from_their_mean():
    """They are moved to within 5 of it, with or without a step of their own."""
    compare(RuleConfig(), MIXED, rule.step, spread=12.0)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_ablation(ablation):
    compare(RuleConfig(**ABLATIONS[ablation]), MIXED, rule.step)


@pytest.mark.parametrize(
    "field", dataclasses.fields(RuleConfig), ids=lambda field: field.name
)
def test_every_field_has_an_ablation(field):
    values = {fields.get(field.name) for fields in ABLATIONS.values()}
    assert values - {None, field.default}


@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "compiled"])
def test_graph(compiled):
    step = tf.function(rule.step, jit_compile=compiled, autograph=False)
    compare(RuleConfig(), MIXED, step)
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("shapes", ["mixed", "rows"])
def test_compiled_float32(shapes):
    step = tf.function(rule.step, jit_compile=True, autograph=False)
    # Rounding errors of 6e-8 add up over 20 steps; 4e-5 is reached: signs
    # cancel in the sums of the alignment.
    compare(RuleConfig(), SHAPES[shapes], step, "float32", 6e-5, 6e-6)
