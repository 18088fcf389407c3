"""Misuse of the constructor and of `build`: checked by the error text."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN, RuleConfig
from hrnn_opt.rule import meta_parameters

SMALL = RuleConfig(param_units=2, tensor_units=2, global_units=2, timescales=2)


@pytest.mark.parametrize(
    "arguments, text",
    [
        (
            {"config": 3},
            "Argument `config` must be a RuleConfig or None. Received: "
            "config=3",
        ),
        (
            {"config": "attention"},
            "`config` must be a RuleConfig.*config='attention'",
        ),
        (
            {"config": SMALL},
            "`config` must equal that of weights='pretrained', .*"
            r"param_units=10.*Received: config=RuleConfig\(param_units=2",
        ),
        (
            {"weights": None, "config": {"colour": 1}},
            r"Received unknown: \['colour'\]",
        ),
        (
            {"weights": None, "seed": -1},
            "`seed` must be an integer of at least 0, or None. "
            "Received: seed=-1",
        ),
        ({"weights": None, "seed": 1.0}, "`seed` must be.*seed=1.0"),
        ({"weights": None, "seed": True}, "`seed` must be.*seed=True"),
        ({"seed": -1}, "`seed` must be.*seed=-1"),
        (
            {"weights": 3},
            "`weights` must be a name, a path or None. Received: weights=3",
        ),
        (
            {"state_dtype": "float16"},
            "`state_dtype` must be one of .*bfloat16.*state_dtype='float16'",
        ),
        ({"weights": False}, "`weights` must be.*weights=False"),
        ({"learning_rate": 1}, "`learning_rate` should be float.*=1"),
        (
            {"clipnorm": 1.0, "clipvalue": 1.0},
            "Only one of `clipnorm`, `clipvalue` and `global_clipnorm`",
        ),
        ({"beta_1": 0.9}, r"not recognized: \{'beta_1': 0.9\}"),
        ({"ema_momentum": 2.0, "use_ema": True}, "`ema_momentum` must be"),
        (
            {"gradient_accumulation_steps": 1},
            "`gradient_accumulation_steps` must be an integer >= 2",
        ),
    ],
)
def test_constructor_refuses(arguments, text):
    with pytest.raises(ValueError, match=text):
        HierarchicalRNN(**arguments)


def test_missing_weights_are_refused_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.npz"):
        HierarchicalRNN(weights=tmp_path / "nowhere.npz")


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_variables_must_hold_floats(dtype):
    optimizer = HierarchicalRNN()
    floats = keras.Variable(np.ones(2, "float32"))
    others = keras.Variable(
        np.ones(2, dtype), dtype=dtype, trainable=False, name="counts"
    )
    text = f"trains variables of floats. Received: counts of dtype {dtype}"
    with pytest.raises(ValueError, match=text):
        optimizer.build([floats, others])


def test_one_device_strategy_is_welcome():
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        variable = keras.Variable(np.ones(2, "float32"))
        optimizer = HierarchicalRNN()
        optimizer.swapped_by_callback = True
        optimizer.apply_gradients([(np.ones(2, "float32"), variable)])
    assert np.all(variable.numpy() < 1)


def test_unknown_variable_is_refused():
    optimizer = HierarchicalRNN()
    optimizer.swapped_by_callback = True
    optimizer.build([keras.Variable(np.ones(2, "float32"))])
    stranger = keras.Variable(np.ones(2, "float32"))
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply_gradients([(np.ones(2, "float32"), stranger)])


def test_no_gradients_at_all_are_refused():
    optimizer = HierarchicalRNN()
    optimizer.swapped_by_callback = True
    variable = keras.Variable(np.ones(2, "float32"))
    with pytest.raises(ValueError, match="No gradients provided"):
        optimizer.apply_gradients([(None, variable)])


def test_drawn_seed_is_told_and_reproduces():
    optimizer = HierarchicalRNN(weights=None, config=SMALL)
    config = optimizer.get_config()
    assert type(config["seed"]) is int
    again = HierarchicalRNN.from_config(config)
    drawn = [o._initial_vector for o in (optimizer, again)]
    np.testing.assert_array_equal(*drawn)
    expected = meta_parameters.initial_vector(SMALL, config["seed"])
    np.testing.assert_array_equal(drawn[0], expected)


def test_seed_of_none_differs_from_call_to_call():
    first, second = (
        HierarchicalRNN(weights=None, config=SMALL) for _ in range(2)
    )
    assert first.seed != second.seed
    assert np.any(first._initial_vector != second._initial_vector)


def test_meta_parameters_are_saved_and_no_state_to_set_to_zero():
    optimizer = HierarchicalRNN(weights=None, config=SMALL, seed=3)
    assert optimizer.meta_parameters is None
    optimizer.build([keras.Variable(np.ones(2, "float32"))])
    expected = meta_parameters.initial_vector(SMALL, 3)
    np.testing.assert_array_equal(optimizer.meta_parameters, expected)
    assert "meta_parameters" not in [v.name for v in optimizer.variables]
    store = {}
    optimizer.save_own_variables(store)
    assert any(np.array_equal(value, expected) for value in store.values())
