"""What users do with other optimizers, also done with Adam."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN
from hrnn_opt.model import kernels, upper, user_line

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 4)).astype("float32")
Y = np.sin(X @ RNG.normal(size=(4, 1))).astype("float32")

BOTH = pytest.mark.parametrize(
    "new", [keras.optimizers.Adam, HierarchicalRNN], ids=["adam", "hrnn"]
)


def network(optimizer):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, "tanh"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer, "mse")
    return model


def fit(model, epochs=1, **kwargs):
    history = model.fit(
        X, Y, 16, epochs=epochs, shuffle=False, verbose=0, **kwargs
    )
    return history.history["loss"]


@BOTH
def test_freezing_and_unfreezing_with_the_same_optimizer(new):
    model = network(new())
    fit(model)
    first, last = model.layers
    first.trainable = False
    model.compile(model.optimizer, "mse")
    kernel, other = first.kernel.numpy(), last.kernel.numpy()
    fit(model, 3)
    np.testing.assert_array_equal(first.kernel, kernel)
    assert np.any(last.kernel.numpy() != other)
    first.trainable = True
    model.compile(model.optimizer, "mse")
    fit(model)
    assert np.any(first.kernel.numpy() != kernel)


def test_reset_is_a_new_optimizer():
    model = network(HierarchicalRNN(use_ema=True))
    start = model.get_weights()
    first = fit(model, 2)
    ended = [v.numpy() for v in model.optimizer.variables]
    weights = model.get_weights()

    def again():
        model.set_weights(start)
        np.testing.assert_array_equal(fit(model, 2), first)
        now = [v.numpy() for v in model.optimizer.variables]
        for a, b in zip(now, ended, strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(a, b)

    model.optimizer.reset()
    again()
    # A common recipe: set all variables of the optimizer to zero.
    for variable in model.optimizer.variables:
        if "learning_rate" not in variable.path:
            variable.assign(tf.zeros_like(variable))
    again()


@BOTH
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_variable_without_elements_is_ignored(new, mode):
    variables = [tf.Variable(tf.zeros([0, 4])), tf.Variable(tf.ones([3]))]
    optimizer = new()

    def step():
        gradients = [tf.zeros([0, 4]), tf.ones([3])]
        pairs = zip(gradients, variables, strict=True)
        optimizer.apply_gradients(pairs)

    if mode == "graph":
        step = tf.function(step, autograph=False)
    for _ in range(2):
        step()
    assert np.all(variables[1].numpy() < 1)
    assert variables[0].shape == (0, 4)


def test_autograph_converts_nothing_of_ours(monkeypatch):
    """Users write `@tf.function`, and call `apply` themselves."""
    variable = tf.Variable(tf.ones([3]))
    optimizer = HierarchicalRNN()
    seen = []

    def evaluates():
        seen.append(tf.__internal__.autograph.control_status_ctx().status.name)
        return False

    monkeypatch.setattr(user_line, "evaluates", evaluates)

    @tf.function
    def step():
        optimizer.apply([tf.ones([3])], [variable])

    step()
    assert np.all(variable.numpy() < 1)
    assert set(seen) == {"DISABLED"}


def test_state_trees_have_the_same_paths_however_it_was_built():
    """Adam's paths differ: the first step builds it under another name."""

    def functional():
        inputs = keras.Input((4,))
        hidden = keras.layers.Dense(8, "tanh", name="hidden")(inputs)
        outputs = keras.layers.Dense(1, name="outputs")(hidden)
        model = keras.Model(inputs, outputs)
        model.compile(HierarchicalRNN(), "mse")
        return model

    model, copy = functional(), functional()
    fit(model)
    copy.optimizer.build(copy.trainable_variables)
    tree = model.get_state_tree()
    assert flat(tree).keys() == flat(copy.get_state_tree()).keys()
    copy.set_state_tree(tree)
    np.testing.assert_array_equal(fit(copy), fit(model))


def flat(tree, path=()):
    """The paths of a nested dict, with their values."""
    if not isinstance(tree, dict):
        return {path: tree}
    parts = [flat(value, (*path, key)) for key, value in tree.items()]
    return {key: value for part in parts for key, value in part.items()}


def test_a_variable_of_unknown_shape_is_named():
    variable = tf.Variable(tf.ones([3, 4]), shape=[None, 4], name="ragged")
    optimizer = HierarchicalRNN()
    with pytest.raises(ValueError, match="known shapes.*ragged.*None"):
        optimizer.build([variable])


@BOTH
@pytest.mark.parametrize("eagerly", [False, True])
def test_numerics_are_checked(new, eagerly):
    tf.debugging.enable_check_numerics()
    try:
        model = network(new())
        model.run_eagerly = eagerly
        assert np.isfinite(fit(model)[0])
    finally:
        tf.debugging.disable_check_numerics()


@BOTH
def test_copies(new):
    model = network(new())
    losses = fit(model)
    # As in Keras, an optimizer is copied without its state, a model with it.
    for copied in (
        copy.deepcopy(new(0.25)),
        pickle.loads(pickle.dumps(new(0.25))),
    ):
        assert float(copied.learning_rate) == 0.25
        assert fit(network(copied)) != losses
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(fit(copied), fit(model))


def test_the_registered_name_is_a_name():
    optimizer = keras.optimizers.get("hrnn_opt>HierarchicalRNN")
    assert isinstance(optimizer, HierarchicalRNN)


def test_building_in_a_step_does_not_trace_it_twice():
    variable, traces = keras.Variable(np.ones(3, "float32")), []
    optimizer = HierarchicalRNN()

    @tf.function(autograph=False)
    def step():
        traces.append(optimizer.built)
        optimizer.apply([tf.ones(3)], [variable])

    for _ in range(2):
        step()
    assert traces == [False]
    assert optimizer.iterations == 2


def test_models_of_similar_size_share_programs():
    """A tuner's trials leave nothing behind that grows with their number."""

    def programs(width):
        optimizer = HierarchicalRNN()
        shapes = [(4, width), (width,), (width, 1), (1,)]
        variables = [keras.Variable(np.ones(shape, "f4")) for shape in shapes]
        gradients = [tf.ones(shape) for shape in shapes]
        optimizer.apply(gradients, variables)
        kept = [
            kernels.compiled(f, optimizer.config)
            for f in (kernels.sense_chunk, kernels.advance_chunk)
        ]
        kept += [
            upper.traced(f, optimizer.config)
            for f in (upper.begin, upper.finish)
        ]
        return [f.experimental_get_tracing_count() for f in kept]

    first = programs(9)
    for width in (10, 11, 12):
        assert programs(width) == first
