"""The guard: what it detects, where it goes back to, and how it continues."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN, callbacks, weights
from hrnn_opt.model import guard
from hrnn_opt.rule import meta_parameters
from hrnn_opt.rule.config import RuleConfig
from tests.reference_pair import (
    BIAS,
    ReferencePair,
    draw_gradients,
    weights_file,
)
from tests.test_resuming import (
    WAYS,
    assert_same,
    everything,
    fit,
    new,
    new_model,
    train,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:HierarchicalRNN trains at"),
    pytest.mark.filterwarnings("ignore:HierarchicalRNN.guard=True. watches"),
    pytest.mark.filterwarnings("ignore:HierarchicalRNN skipped"),
]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Makes failures show within a few steps."""
    monkeypatch.setattr(guard, "INTERVAL", 4)
    monkeypatch.setattr(guard, "PATIENCE", 3)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return weights_file(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def exploding(tmp_path_factory):
    """Meta-parameters whose steps grow by e^0.5 each, and descend."""
    config = RuleConfig()
    vector = meta_parameters.initial_vector(config, 0)
    start = 0
    for name, shape in meta_parameters.shapes(config).items():
        size = int(np.prod(shape))
        if name == "step_bias":
            vector[start : start + size] = 0.5
        if name == "step_momentum":
            vector[start : start + size] = -20.0
        start += size
    file = tmp_path_factory.mktemp("weights") / "exploding.npz"
    weights.save(file, config, vector)
    return file


def state(optimizer):
    return optimizer._slots.guard


QUICKLY = pytest.mark.skipif(
    bool(os.environ.get("XLA_FLAGS")),
    reason="Quickly compiled programs round differently. Run: XLA_FLAGS= "
    "pytest -m slow tests/test_guard.py::test_unbroken_run_is_the_same",
)


@pytest.mark.parametrize(
    "jit_compile",
    [False, pytest.param(True, marks=[pytest.mark.slow, QUICKLY])],
)
def test_unbroken_run_is_the_same(path, jit_compile):
    def run(**arguments):
        model = new("pretrained", **arguments)
        model.compile(model.optimizer, "mse", jit_compile=jit_compile)
        extra = [callbacks.Guard()] if arguments else []
        fit(model, 0, 6, *extra)
        return model

    watched, plain = run(guard=True), run()
    assert watched.optimizer.rollbacks == 0
    assert int(state(watched.optimizer).points) == 1 + 6
    assert int(state(watched.optimizer).intervals) == 6
    assert watched.optimizer.first_rollback_at is None
    for a, b in zip(everything(plain), everything(watched), strict=False):
        np.testing.assert_array_equal(a, b)


def test_good_point_is_one_interval_back():
    model = new("paper", guard=True)
    points = []
    for k in range(12):
        train(model, [k])
        slots = model.optimizer._slots
        points.append(
            [
                v.numpy() - slots.offset(t).numpy()
                for t, v in enumerate(model.trainable_variables)
            ]
        )
        model.optimizer.watch(1.0)
    for kept, n in (("candidate", 12), ("good", 8)):
        value = getattr(state(model.optimizer), kept).numpy()
        wanted = np.concatenate([np.ravel(x) for x in points[n - 1]])
        np.testing.assert_array_equal(value, wanted, kept)


@pytest.mark.parametrize(
    "mode, ablation",
    [
        ("eager", {}),
        pytest.param("graph", {}, marks=pytest.mark.slow),
        pytest.param("jit", {}, marks=pytest.mark.slow),
        ("eager", {"attention": False}),
        ("eager", {"relative_learning_rate": False}),
        ("eager", {"length_unit": 0.3}),
    ],
    ids=str,
)
def test_steps_after_a_failure_follow_the_reference(tmp_path, mode, ablation):
    path = weights_file(tmp_path, **ablation)
    features = {"weight_decay": 0.5, "ema_momentum": 0.75}
    pair = ReferencePair(
        path,
        mode=mode,
        guard=True,
        use_ema=True,
        reference=features,
        **features,
    )
    gradients = draw_gradients(24)
    pair.fail(gradients[:12])
    for k in range(12, 24):
        # Elements and tensors that get their first gradient later.
        gradients[k][BIAS][: 18 - k] = 0
        if k < 15:
            gradients[k][BIAS] = None
        pair.run(gradients[k : k + 1])
        pair.optimizer.watch(1.0)
    assert pair.optimizer.rollbacks == 1


def failed_fit(exploding, epochs=12, **compiled):
    model = new(exploding, guard=True)
    if compiled:
        model.compile(model.optimizer, "mse", **compiled)
    losses = keras.callbacks.History()
    with pytest.warns(UserWarning, match="the guard went back to the last"):
        fit(model, 0, epochs, callbacks.Guard(), losses)
    return model, losses.history["loss"]


@pytest.mark.slow
def test_exploding_rule_is_stopped(exploding):
    model, losses = failed_fit(exploding, 40)
    unguarded = new(exploding)
    fit(unguarded, 0, 40)
    worst = unguarded.evaluate(*data(), verbose=0)
    assert not worst < 1e3
    assert 1 <= model.optimizer.rollbacks
    assert losses[-1] < losses[0]
    assert model.evaluate(*data(), verbose=0) < losses[0]
    assert all(np.isfinite(v).all() for v in everything(model))


def data():
    from tests.test_resuming import X, Y

    return X, Y


@pytest.mark.parametrize(
    "compiled",
    [
        {"steps_per_execution": 4},
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
        pytest.param({"run_eagerly": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_in_all_modes_of_fit(exploding, compiled):
    model, losses = failed_fit(exploding, 30, **compiled)
    assert losses[-1] < losses[0]
    assert all(np.isfinite(v).all() for v in everything(model))


@pytest.mark.parametrize("mode", ["eager", "graph", "jit"])
def test_steps_alone_are_watched_in_a_loop(exploding, mode):
    variable = keras.Variable(np.ones(5, "float32"))
    optimizer = HierarchicalRNN(0.01, exploding, guard=True)
    optimizer.build([variable])

    def step():
        optimizer.apply([2 * variable.value], [variable])

    if mode != "eager":
        step = tf.function(step, jit_compile=mode == "jit", autograph=False)
    largest = 0.0
    # Eager steps are slow.
    for _ in range(100 if mode == "eager" else 300):
        step()
        largest = max(largest, np.max(np.abs(variable.numpy())))
    assert largest > 1e2 and optimizer.rollbacks > 0
    assert optimizer.first_rollback_at < 50
    assert np.max(np.abs(variable.numpy())) < 1


def test_loss_is_watched_in_a_graph():
    variable = keras.Variable(np.ones(5, "float32"))
    optimizer = HierarchicalRNN(1e-2, guard=True)
    optimizer.build([variable])

    @tf.function(autograph=False)
    def step(loss):
        optimizer.apply([2 * variable.value], [variable])
        optimizer.watch(loss)

    for loss, rollbacks in [(1.0, 0)] * 8 + [(1e9, 0)] * 3 + [(1e9, 1)]:
        step(tf.constant(loss))
        assert optimizer.rollbacks == rollbacks
    good = variable.numpy()
    step(tf.constant(1.0))
    # It is as long as the last good steps.
    moved = np.sqrt(np.mean((variable.numpy() - good) ** 2))
    unit = 1e-2 * optimizer.config.length_unit
    length = unit * np.exp(float(state(optimizer).lengths[0]))
    np.testing.assert_allclose(moved, length, 1e-4)


class Cliff:
    """|x| descends slowly; beyond the edge gradients stay NaN."""

    def __init__(self, edge):
        self.edge = edge

    def gradient(self, x):
        beyond = np.any(np.abs(x) > self.edge)
        return np.full_like(x, np.nan) if beyond else np.sign(x)


def test_back_from_beyond_a_cliff(exploding):
    cliff = Cliff(3.0)
    variable = keras.Variable(np.linspace(0.5, 1, 5).astype("float32"))
    optimizer = HierarchicalRNN(0.01, exploding, guard=True)
    seen = []
    with pytest.warns(UserWarning, match="first after iteration"):
        for _ in range(60):
            gradient = cliff.gradient(variable.numpy())
            optimizer.apply([tf.constant(gradient)], [variable])
            seen.append(optimizer.rollbacks)
    assert optimizer.rollbacks >= 1
    back = seen.index(1)
    # It stayed beyond the cliff for as long as patience lasts.
    assert optimizer.skipped_steps % 3 == 0 and optimizer.skipped_steps
    assert optimizer.first_rollback_at == back
    assert np.max(np.abs(variable.numpy())) < 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e3])
def test_loss_decides(bad):
    model = new("paper", guard=True)
    optimizer = model.optimizer
    for k in range(8):
        train(model, [k])
        optimizer.watch(2.0 - 0.1 * k)
    good = state(optimizer).good.numpy()
    lengths = state(optimizer).good_lengths.numpy()
    train(model, range(4))
    with pytest.warns(UserWarning, match="the guard went back"):
        optimizer.watch(bad, steps=4)
    assert optimizer.rollbacks == 1 and optimizer.first_rollback_at == 12
    held = [np.ravel(v.numpy()) for v in model.trainable_variables]
    np.testing.assert_array_equal(np.concatenate(held), good)
    assert not any(np.any(optimizer._slots.offset(t)) for t in range(4))
    np.testing.assert_array_equal(state(optimizer).lengths, lengths)
    # 2.6 is not far above: lowest 1.5, first 1.85.
    for loss, rollbacks in ((2.2, 1), (2.6, 2)):
        train(model, range(4))
        optimizer.watch(loss, steps=4)
        assert optimizer.rollbacks == rollbacks
    shorter = lengths + np.log(0.1)
    np.testing.assert_allclose(state(optimizer).lengths, shorter, 1e-6)


@pytest.mark.parametrize("broken_rows", [1, 16])
def test_averages_and_other_variables_go_back(broken_rows):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2),
        ]
    )
    optimizer = HierarchicalRNN(
        2.0**-8, None, seed=0, guard=True, use_ema=True, ema_momentum=0.5
    )
    model.compile(optimizer, "mse")
    x, y = data()
    arguments = {"batch_size": 4, "verbose": 0, "shuffle": False}
    watch = [callbacks.AttentionSwap(), callbacks.Guard()]
    model.fit(x, y, epochs=3, callbacks=watch, **arguments)
    before = [v.numpy() for v in model.non_trainable_variables]
    broken = x.copy()
    # In the loss of one batch, or in so many that skipped steps come first.
    broken[:broken_rows] = np.nan
    with pytest.warns(UserWarning, match="the guard went back"):
        model.fit(broken, y, epochs=1, callbacks=watch, **arguments)
    assert optimizer.rollbacks == 1
    for v, value in zip(model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(v.numpy(), value)
    assert np.isfinite(model.evaluate(x, y, verbose=0))
    model.fit(x, y, epochs=2, callbacks=watch, **arguments)
    assert optimizer.rollbacks == 1
    assert all(np.isfinite(v).all() for v in everything(model))


@pytest.mark.slow
@pytest.mark.parametrize("failed", [False, True])
def test_guarded_state_resumes(exploding, tmp_path, monkeypatch, failed):
    file = exploding if failed else "pretrained"
    monkeypatch.setattr(
        "tests.test_resuming.new",
        lambda path, seed=0: new_model(
            HierarchicalRNN(2.0**-6, file, guard=True), seed
        ),
    )
    whole, watch = new(file, guard=True), callbacks.Guard()
    first = 30 if failed else 3
    fit(whole, 0, first, watch)
    assert bool(whole.optimizer.rollbacks) == failed
    before = everything(whole)
    loaded = [way(whole, tmp_path, file) for way in WAYS]
    assert_same(whole, before)
    fit(whole, first, first + 3, watch)
    for half in loaded:
        assert half.optimizer.guard
        assert_same(half, before)
        fit(half, first, first + 3, watch)
        assert half.optimizer.rollbacks == whole.optimizer.rollbacks
        assert_same(half, everything(whole))


def test_plain_state_starts_the_guard(tmp_path):
    plain, guarded = new("pretrained"), new("pretrained", guard=True)
    fit(plain, 0, 2)
    plain.save_weights(tmp_path / "plain.weights.h5")
    fit(guarded, 0, 3)
    guarded.load_weights(tmp_path / "plain.weights.h5")
    assert int(state(guarded.optimizer).points) == 0
    for model in (plain, guarded):
        fit(model, 2, 4)
    for a, b in zip(everything(plain), everything(guarded), strict=False):
        np.testing.assert_array_equal(a, b)


def test_guarded_state_needs_a_guard(tmp_path):
    plain, guarded = new("pretrained"), new("pretrained", guard=True)
    fit(guarded, 0, 1)
    guarded.save_weights(tmp_path / "guarded.weights.h5")
    with pytest.raises(ValueError, match="that of guard=True.*guard=False"):
        plain.load_weights(tmp_path / "guarded.weights.h5")


def test_state_without_guard_is_as_ever(path):
    plain, guarded = new(path), new(path, guard=True)
    names = [v.name for v in plain.optimizer.variables]
    with_guard = [v.name for v in guarded.optimizer.variables]
    assert with_guard[: len(names)] == names
    assert all(n.startswith("guard_") for n in with_guard[len(names) :])
    assert not any(n.startswith("guard_") for n in names)


def test_config_round_trip(path):
    for value in (True, False):
        optimizer = HierarchicalRNN(weights=path, guard=value)
        config = optimizer.get_config()
        assert config["guard"] is value
        assert HierarchicalRNN.from_config(config).guard is value
    config.pop("guard")  # as before guards existed
    assert HierarchicalRNN.from_config(config).guard is False


def test_missing_callback_is_announced(path):
    model = new(path, guard=True)
    with pytest.warns(UserWarning, match="watches its steps alone.*Guard()"):
        fit(model, 0, 1)


@pytest.mark.parametrize("autograph", [True, False])
def test_a_loop_is_told_in_its_own_line(path, autograph):
    variable = tf.Variable(tf.ones([3]))
    optimizer = HierarchicalRNN(weights=path, guard=True)

    def step():
        optimizer.apply([tf.ones([3])], [variable])

    with pytest.warns(UserWarning, match="watches its steps") as caught:
        tf.function(step, autograph=autograph)()
    assert {one.filename for one in caught} == {__file__}


def test_misuse_is_refused(path):
    with pytest.raises(ValueError, match="`guard` must be True or.*guard=1"):
        HierarchicalRNN(weights=path, guard=1)
    with pytest.raises(ValueError, match="needs guard=True.*guard=False"):
        new(path).optimizer.watch(1.0)
    with pytest.raises(ValueError, match="is built.*built=False"):
        HierarchicalRNN(weights=path, guard=True).watch(1.0)
    with pytest.raises(ValueError, match="Guard needs HierarchicalRNN.guard"):
        fit(new(path), 0, 1, callbacks.Guard())
