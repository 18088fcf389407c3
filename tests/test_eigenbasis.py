"""Gradients of a model's matrices in their eigenbases."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN, RuleConfig
from hrnn_opt.model import guard
from hrnn_opt.rule import meta_parameters, products
from hrnn_opt.rule import step as rule
from hrnn_opt.rule.segments import Segments
from hrnn_opt.rule.state import TensorState, initial_state
from tests.reference_pair import (
    BIAS,
    FILTERS,
    KERNEL,
    NUMBERS,
    SHAPES,
    ReferencePair,
    draw_gradients,
    new_variables,
    weights_file,
)
from tests.test_saving import (
    assert_identical,
    everything,
    fit,
    new,
    reloaded,
)

pytestmark = pytest.mark.filterwarnings("ignore:Gradients do not exist")

BASES = {"attention": False, "eigenbasis": 256.0}


def matrices():
    """Variables, the last of which is that of an output layer."""
    head = keras.Variable(np.ones((3, 2)), dtype="float64", name="head")
    return [*new_variables(), head]


def turning(steps=24, seed=2):
    """Gradients of `matrices` whose bases turn; some are missing."""
    gradients = draw_gradients(steps, seed)
    mix = np.random.default_rng(seed).normal(size=(4, 4))
    for step in gradients:
        step[KERNEL] = mix @ step[KERNEL]
    for step in gradients[1::2]:
        step[KERNEL][1] = 0
        step[BIAS][1:] = 0
    gradients[12][FILTERS] *= 0
    gradients[4][KERNEL] = gradients[5][KERNEL] = None
    gradients[9][FILTERS] = None
    head = np.random.default_rng(seed).normal(size=(steps, 3, 2))
    return [[*step, own] for step, own in zip(gradients, head, strict=True)]


@pytest.mark.parametrize(
    "mode, config, arguments",
    [
        ("eager", {}, {}),
        ("graph", {}, {}),
        ("jit", {}, {}),
        ("eager", {"eigenbasis": 3.0}, {}),
        ("graph", NUMBERS | {"negligible": 0.05, "length_unit": 0.3}, {}),
        ("eager", {"lazy": False}, {"weight_decay": 0.5}),
    ],
    ids=["eager", "graph", "jit", "short sides", "numbers", "decay"],
)
def test_steps_are_those_of_the_reference(tmp_path, mode, config, arguments):
    path = weights_file(tmp_path, **BASES | config)
    pair = ReferencePair(
        path,
        mode=mode,
        variables=matrices(),
        reference=arguments,
        **arguments,
    )
    for given in turning():
        pair.step(given)
        pair.check(1e-7)
        for t, basis in pair.optimizer._slots.bases.items():
            wanted = pair.reference.bases[t]
            assert int(basis.since) == wanted.since
            for own, other in zip(
                (*basis.moments, *basis.matrices_of()),
                (*wanted.moments, *wanted.turns),
                strict=True,
            ):
                assert (own is None) == (other is None)
                if own is not None:
                    np.testing.assert_allclose(own, other, 1e-7, 1e-9)
    bases = pair.optimizer._slots.bases
    assert set(bases) == {KERNEL, FILTERS}
    for basis in bases.values():
        turns = [q.numpy() for q in basis.matrices_of() if q is not None]
        assert turns
        for q in turns:
            assert np.max(np.abs(q - np.eye(len(q)))) > 1e-2


def test_without_bases_steps_are_others(tmp_path):
    """Else the comparison above would show nothing."""
    gradients = turning()
    thetas = []
    for limit in (0.0, 256.0):
        pair = ReferencePair(
            weights_file(tmp_path, attention=False, eigenbasis=limit),
            variables=matrices(),
        )
        for given in gradients:
            pair.reference.apply(given)
        thetas.append(pair.reference.theta)
    for t in (KERNEL, FILTERS):
        assert np.max(np.abs(thetas[0][t] - thetas[1][t])) > 1e-3
    # Tensors see each other through their means only.
    assert np.max(np.abs(thetas[0][BIAS] - thetas[1][BIAS])) < 0.2


def test_an_element_without_gradient_stays(tmp_path):
    pair = ReferencePair(weights_file(tmp_path, **BASES), variables=matrices())
    gradients = turning()
    for given in gradients:
        given[FILTERS] = given[KERNEL] = None
        given[KERNEL] = np.random.default_rng(3).normal(size=SHAPES["kernel"])
        given[KERNEL][1, 2] = 0
    start = pair.variables[KERNEL].numpy()
    for given in gradients:
        pair.step_optimizer(given)
    same = pair.variables[KERNEL].numpy() == start
    wanted = np.zeros_like(same)
    wanted[1, 2] = True
    np.testing.assert_array_equal(same, wanted)


def test_a_tiny_rate_changes_no_basis(tmp_path):
    """As it changes no other state, see `rates`."""
    rate = keras.Variable(0.125)
    pair = ReferencePair(
        weights_file(tmp_path, **BASES),
        lambda: rate.value,
        mode="graph",
        variables=matrices(),
    )
    gradients = turning()
    pair.run(gradients[:9])
    before = everything_of(pair)
    rate.assign(2.0**-13)
    pair.reference.learning_rate = 2.0**-13
    # The tenth step would turn the bases.
    pair.run(gradients[9:12])
    assert_identical(before, everything_of(pair))
    rate.assign(0.125)
    pair.reference.learning_rate = 0.125
    pair.run(gradients[12:])


def everything_of(pair):
    """The bases of an optimizer, by name."""
    return {
        v.path: v.numpy()
        for basis in pair.optimizer._slots.bases.values()
        for v in basis.variables
    }


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("waits", [False, True])
def test_steps_after_a_failure_are_those_of_the_reference(
    tmp_path, monkeypatch, mode, waits
):
    monkeypatch.setattr(guard, "INTERVAL", 4)
    config = BASES | {"tensor_growth": 1e3, "basis_length": 10.0 * waits}
    pair = ReferencePair(
        weights_file(tmp_path, **config),
        mode=mode,
        guard=True,
        variables=matrices(),
    )
    gradients = turning(34)
    if waits:
        run = pair.run
        pair.run = lambda given: (run(given), grow(pair))
    pair.fail(gradients[:12])
    waited = int(pair.optimizer._slots.bases[KERNEL].since)
    assert (waited >= 10) == waits
    before = everything_of(pair)
    for given in gradients[12:]:
        pair.step(given)
        pair.check(1e-7)
        pair.optimizer.watch(1.0)
    assert pair.optimizer.rollbacks == 1
    for path, value in everything_of(pair).items():
        assert np.max(np.abs(value - before[path])) > 1e-3


def test_a_tensor_with_few_gradients_turns_too(tmp_path):
    """After ten gradients of its own, whatever the others did meanwhile."""
    pair = ReferencePair(weights_file(tmp_path, **BASES), variables=matrices())
    for k, given in enumerate(turning(24)):
        given[KERNEL] = given[KERNEL] if k % 2 else None
        pair.step(given)
    pair.check(1e-7)
    basis = pair.optimizer._slots.bases[KERNEL]
    assert np.max(np.abs(basis.turns[0])) > 1e-3


def grow(pair):
    """As if all step lengths of a pair had grown by a factor e lately."""
    tensors = pair.optimizer._slots.tensors
    average = TensorState._fields.index("average")
    values = tensors.numpy()
    values[average] -= 1
    tensors.assign(values)
    pair.reference.average -= 1


@pytest.mark.parametrize("mode", ["eager", "graph", "jit"])
@pytest.mark.parametrize("limit, longest", [(10.0, 20), (1e-9, 9)])
def test_bases_wait_while_short_steps_grow(tmp_path, mode, limit, longest):
    config = BASES | {"tensor_growth": 1e3, "basis_length": limit}
    pair = ReferencePair(
        weights_file(tmp_path, **config), mode=mode, variables=matrices()
    )
    seen = []
    for k, given in enumerate(draw_gradients(24)):
        pair.step([*given, np.ones((3, 2))])
        if k == 8:
            grow(pair)
        pair.check(1e-7)
        seen.append(int(pair.optimizer._slots.bases[KERNEL].since))
        assert seen[-1] == pair.reference.bases[KERNEL].since
    assert max(seen) == longest
    assert seen[-1] < longest


def test_what_a_rising_rate_took_back_is_no_growth(tmp_path):
    """And lengths are multiples of the rate less the debt, see `rates`."""
    rate = keras.Variable(0.125)
    config = BASES | {"tensor_growth": 1e3, "basis_length": 10.0}
    pair = ReferencePair(
        weights_file(tmp_path, **config),
        lambda: rate.value,
        variables=matrices(),
    )
    waited = []
    for k, given in enumerate(draw_gradients(40)):
        if k in (5, 14):
            rate.assign(rate.value * 2)
            pair.reference.learning_rate = float(rate.value)
        pair.step([*given, np.ones((3, 2))])
        if k == 8:
            grow(pair)
        pair.check(1e-7)
        waited.append(pair.reference.bases[KERNEL].since)
        assert int(pair.optimizer._slots.bases[KERNEL].since) == waited[-1]
    assert max(waited) > 9
    assert np.max(pair.reference.debt) > 0


def large_matrix(folder, value):
    """An optimizer of two matrices, and gradients of one size."""
    variables = [keras.Variable(np.zeros((64, d), "float32")) for d in (64, 3)]
    optimizer = HierarchicalRNN(2.0**-5, weights_file(folder, **BASES))
    optimizer.build(variables)
    rng = np.random.default_rng(5)
    signs = [np.sign(rng.normal(size=v.shape)) for v in variables]
    signs[0][:] = 1
    return (
        optimizer,
        variables,
        [tf.constant(value * s, "float32") for s in signs],
    )


@pytest.mark.parametrize("value", [1e37, 2e38])
def test_finite_gradients_stay_finite(tmp_path, value):
    optimizer, variables, gradients = large_matrix(tmp_path, value)
    for _ in range(22):
        optimizer.apply(gradients, variables)
    assert optimizer.skipped_steps == 0
    for variable in variables:
        assert np.isfinite(variable.numpy()).all()
        assert np.any(variable.numpy())


def test_all_variables_at_zero_are_a_new_start(tmp_path):
    """As users forget an optimizer's past."""
    optimizer, variables, gradients = large_matrix(tmp_path, 1.0)
    for _ in range(12):
        optimizer.apply(gradients, variables)
    moved = [v.numpy() for v in variables]
    for variable in optimizer.variables:
        if variable is not optimizer.learning_rate:
            variable.assign(np.zeros(variable.shape))
    optimizer.learning_rate = 2.0**-5
    for variable in variables:
        variable.assign(np.zeros(variable.shape))
    for _ in range(12):
        optimizer.apply(gradients, variables)
    for variable, wanted in zip(variables, moved, strict=True):
        np.testing.assert_allclose(variable, wanted, 1e-5)


def test_saved_and_continued_is_uninterrupted(tmp_path):
    path = weights_file(tmp_path, **BASES)
    whole, half = new(path), new(path)
    fit(whole, epochs=4)
    fit(half, epochs=2)
    again = reloaded(half, tmp_path)
    assert_identical(everything(half), everything(again))
    fit(again, epochs=2)
    assert_identical(everything(whole), everything(again))


def test_a_reset_forgets_bases(tmp_path):
    path = weights_file(tmp_path, **BASES)
    model, fresh = new(path), new(path)
    for one in (model, fresh):
        one.optimizer.build(one.trainable_variables)
    fit(model, epochs=2)
    model.optimizer.reset()
    assert_identical(
        {v.path: v.numpy() for v in model.optimizer.variables},
        {v.path: v.numpy() for v in fresh.optimizer.variables},
    )


def test_state_without_bases_is_refused(tmp_path):
    (tmp_path / "plain").mkdir()
    plain = new(weights_file(tmp_path / "plain", attention=False))
    fit(plain)
    plain.save_weights(tmp_path / "plain.weights.h5")
    model = new(weights_file(tmp_path, **BASES))
    fit(model)
    with pytest.warns(UserWarning, match="has 20 entries, the file 16"):
        model.load_weights(tmp_path / "plain.weights.h5")


def test_embeddings_and_the_last_matrix_have_none(tmp_path):
    model = keras.Sequential(
        [
            keras.layers.Input((2,), dtype="int32"),
            keras.layers.Embedding(30, 8),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
            keras.layers.Dense(4),
        ]
    )
    model.compile(new(weights_file(tmp_path, **BASES)).optimizer, loss="mse")
    model.optimizer.build(model.trainable_variables)
    assert set(model.optimizer._slots.bases) == {1}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_learns(tmp_path, dtype):
    """Also with its state in bfloat16, where bases remain in float32."""
    model = new(weights_file(tmp_path, **BASES), state_dtype=dtype)
    fit(model, epochs=4)
    for basis in model.optimizer._slots.bases.values():
        for variable in basis.variables[1:]:
            assert variable.dtype == "float32"
            assert np.isfinite(variable.numpy()).all()
        for q in basis.matrices_of():
            if q is not None:
                q = q.numpy()
                np.testing.assert_allclose(q.T @ q, np.eye(len(q)), atol=1e-5)


def test_instances_side_by_side_are_each_alone():
    """Also where one of them is skipped, so that they turn at other steps."""
    config = RuleConfig(attention=False, eigenbasis=50.0)
    shapes = (4, 3), (3,), (3, 2)
    sizes = [int(np.prod(shape)) for shape in shapes]
    segments = Segments(sizes, shapes=shapes)
    vector = meta_parameters.initial_vector(config, 0).astype("float64")
    vector += np.random.default_rng(0).normal(0, 0.2, vector.shape)
    meta = products.from_vector(config, tf.constant(vector))
    rng = np.random.default_rng(1)
    start = rng.normal(size=(sum(sizes), 3))
    gradients = rng.normal(size=(24, sum(sizes), 3))
    gradients[4, 5, 1] = np.nan

    def run(own, instances):
        theta = tf.constant(start[:, own])
        state = initial_state(config, meta, segments, instances)
        lr = tf.constant(0.125, "float64")
        for g in gradients[:, :, own]:
            theta, _, state = rule.step(
                config, meta, segments, state, theta, theta, tf.constant(g), lr
            )
        return theta, state

    together, state = run(slice(None), (3,))
    assert list(state.skipped) == [0, 1, 0]
    basis = state.bases[0]
    assert list(basis.since) == [4, 3, 4]
    for k in range(3):
        alone, own = run(k, ())
        np.testing.assert_allclose(together[:, k], alone, 1e-9)
        for one, other in zip(basis.turns, own.bases[0].turns, strict=True):
            np.testing.assert_allclose(one[k], other, 1e-9, 1e-12)
    assert state.bases[1:] == (None, None)


def test_each_instance_waits_for_itself():
    """The second of three: its steps are short and grow."""
    config = RuleConfig(
        attention=False, eigenbasis=50.0, tensor_growth=1e3, basis_length=10.0
    )
    segments = Segments([12, 6], shapes=((4, 3), (3, 2)))
    vector = meta_parameters.initial_vector(config, 0).astype("float64")
    meta = products.from_vector(config, tf.constant(vector))
    gradients = np.random.default_rng(1).normal(size=(10, 18, 3))
    theta = tf.zeros((18, 3), "float64")
    lr = tf.constant([0.125, 0.125, 1e3], "float64")
    state = initial_state(config, meta, segments, (3,))
    for k, g in enumerate(gradients):
        if k == 9:
            assert list(state.bases[0].since) == [9, 9, 9]
            average = state.tensors.log_step - tf.constant(
                [0.0, 1, 1], "float64"
            )
            tensors = state.tensors._replace(average=average)
            state = state._replace(tensors=tensors)
        theta, _, state = rule.step(
            config, meta, segments, state, theta, theta, tf.constant(g), lr
        )
    assert list(state.bases[0].since) == [0, 10, 0]
