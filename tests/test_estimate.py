"""`estimate`: exact where possible, refused where it cannot be made."""

import dataclasses

import keras
import numpy as np
import pytest

import hrnn_opt
from hrnn_opt import HierarchicalRNN, RuleConfig
from hrnn_opt.cost import calibration, footprint
from hrnn_opt.model import chunks
from hrnn_opt.rule.config import WITHOUT_TENSOR_RNN
from hrnn_opt.rule.eigenbasis import Sides
from tests import programs
from training.benchmark import estimates
from training.benchmark.estimates import Measured, small_mlp


def state_bytes(optimizer):
    held = list(optimizer.variables)
    if isinstance(optimizer, HierarchicalRNN):
        held.append(optimizer.meta_parameters)
    return sum(v.numpy().nbytes for v in held)


def compiled(**arguments):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, activation="tanh"),
            keras.layers.Dense(3),
        ]
    )
    model.compile(HierarchicalRNN(**arguments), "mse")
    return model


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"guard": True},
        {"use_ema": True, "gradient_accumulation_steps": 2},
        {
            "weights": None,
            "config": RuleConfig(attention=False, **WITHOUT_TENSOR_RNN),
        },
        {
            "weights": None,
            "config": RuleConfig(attention=False, eigenbasis=8.0),
        },
    ],
    ids=str,
)
def test_state_is_counted_exactly(arguments):
    model = compiled(**arguments)
    told = hrnn_opt.estimate(model, seconds=0.01)
    assert not model.optimizer.built
    assert (told.parameters, told.tensors) == (53, 4)
    model.optimizer.build(model.trainable_variables)
    assert told.slot_bytes == state_bytes(model.optimizer)
    adam = keras.optimizers.Adam()
    adam.build(model.trainable_variables)
    assert told.adam_slot_bytes == state_bytes(adam) - 12


def test_eigenbases_cost_time_and_temporaries():
    """Those of the first kernel, 6 x 5; the last one has none."""
    plain, with_bases = (
        hrnn_opt.estimate(
            compiled(
                weights=None,
                config=RuleConfig(attention=False, eigenbasis=limit),
            ),
            seconds=0.01,
        )
        for limit in (0.0, 8.0)
    )
    more = with_bases.temporary_bytes - plain.temporary_bytes
    assert more == 4 * (30 + 8 * 30 + 4 * 36)
    assert footprint.basis_bytes([], 4) == 0
    assert calibration.basis_seconds([], "float32", 0.01) == 0
    for side in (Sides(60, 40, True, True), Sides(60, 40, False, True)):
        once = calibration.basis_seconds([side], "float32", 0.05)
        assert once > 0


def test_nothing_of_the_model_changes():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    before = model.get_weights() + [v.numpy() for v in model.variables]
    told = hrnn_opt.estimate(model, batch=8, seconds=0.01)
    after = model.get_weights() + [v.numpy() for v in model.variables]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    assert told.gradient_seconds > 0
    assert told.step_seconds == told.gradient_seconds + told.update_seconds
    assert any("no HierarchicalRNN" in text for text in told.assumptions)


def test_the_model_given_decides():
    # The optimizer inside a wrapper is found; another one may be given.
    small = RuleConfig(param_units=2, tensor_units=2, global_units=2)
    inner = HierarchicalRNN(weights=None, config=small, seed=0)
    model = compiled()
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
    wrapped = hrnn_opt.estimate(model, seconds=0.01)
    passed = hrnn_opt.estimate(
        compiled(), inner, batch=np.zeros((2, 6)), seconds=0.01
    )
    default = hrnn_opt.estimate(compiled(), seconds=0.01)
    assert wrapped.slot_bytes == passed.slot_bytes < default.slot_bytes
    assert passed.temporary_bytes < default.temporary_bytes


def test_table_and_record():
    told = hrnn_opt.estimate(compiled(), batch=4, seconds=0.01)
    text = str(told)
    for words in ("53 parameters in 4 tensors", "state of the optimizer",
                  "update of Adam", "% update", "Assumed:"):  # fmt: skip
        assert words in text
    assert f"{told.slot_bytes / 1e6:.1f} MB" in text
    assert max(map(len, text.split("\n\n")[0].splitlines())) <= 80
    with pytest.raises(dataclasses.FrozenInstanceError):
        told.slot_bytes = 0


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    "sizes", [(100,), (2**17,), (30 * 2**17, 70, 300), (2**16,) * 40]
)
def test_parts_count_up_to_the_whole(sizes, jit_compile):
    """With times that are linear in pieces and padded parameters."""
    part = calibration.parts(sizes, jit_compile)
    fixed, piece, packed = 5.0, 7.0, 1e-3

    def time(run):
        rest = part.packed if run else 0
        return fixed + piece * run.count(chunks.PIECE) + packed * rest

    told = calibration.count_up(part, time(part.smaller), time(part.larger))
    whole = fixed + piece * part.all_pieces + packed * part.all_packed
    # Fixed costs may be counted with the packed ones.
    assert whole <= told * (1 + 1e-9)
    if part.all_packed == part.packed:
        np.testing.assert_allclose(told, whole)
    assert sum(part.larger) <= sum(sizes)


def test_misuse_is_refused():
    unbuilt = keras.Sequential([keras.layers.Dense(2)], name="open")
    frozen = compiled()
    frozen.trainable = False
    variable = keras.Sequential([keras.Input((None, 2)), keras.layers.Dense(2)])
    for arguments, text in (
        ((3,), "`model` must be a keras.Model. Received: model=3"),
        ((unbuilt,), "`model` must be built.*model='open', not built"),
        ((frozen,), "must have trainable weights.*4 weight.*none of them"),
        ((compiled(), "adam"), "`optimizer` must be.*optimizer='adam'"),
        ((compiled(), None, 0), "`batch` must be.*batch=0"),
        ((compiled(), None, 2.5), "`batch` must be.*batch=2.5"),
        ((variable, None, 2), "`batch` must be inputs, not their number"),
        ((compiled(), None, None, 0), "`seconds` must be above 0.*seconds=0"),
    ):
        with pytest.raises(ValueError, match=text):
            hrnn_opt.estimate(*arguments)


def test_what_is_held_besides_is_bounded():
    told = hrnn_opt.estimate(compiled(), seconds=0.01)
    assert 300e6 < told.held_bytes < 320e6
    assert f"{told.held_bytes / 1e6:,.1f} MB" in str(told)
    held = [footprint.held_bytes(5e9, n) for n in (6, 83, 514)]
    assert held == [1.6e9] * 3


def test_the_benchmark_names_its_networks():
    with pytest.raises(ValueError, match="MLP, MobileNet.*--only=large"):
        estimates.run("MobileNet", 0.1, only="large")
    with pytest.raises(ValueError, match="ResNet50V2.*--model=LeNet"):
        estimates.run("LeNet", 0.1)


@pytest.mark.slow
def test_a_process_stays_below_the_forecast():
    def run(optimizer):
        printed = programs.succeeded("tests.forecast_case", optimizer)
        return [float(line) for line in printed.split()]

    peak, forecast = run("hrnn")
    (adam,) = run("adam")
    assert 0 < peak - adam < forecast


@pytest.mark.slow
def test_forecast_holds_on_a_small_network():
    model = small_mlp()
    told = hrnn_opt.estimate(model, seconds=0.5)
    measured = Measured(model, "graph")
    assert told.slot_bytes == measured.slot_bytes()
    assert abs(told.peak_bytes / measured.peak_bytes() - 1) < 0.4
    assert told.update_seconds > 0 and measured.seconds(2) > 0
