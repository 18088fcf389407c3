"""The optimizer with its state in bfloat16: bytes, trajectories, files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import hrnn_opt
from hrnn_opt import HierarchicalRNN, RuleConfig, telemetry
from hrnn_opt.callbacks import AttentionSwap
from hrnn_opt.cost.footprint import slot_bytes, variable_bytes
from hrnn_opt.model import chunks, kernels, rounding
from tests.reference_pair import weights_file
from tests.test_saving import assert_identical, everything, fit, new, new_model

LITE = RuleConfig(param_units=5, tensor_units=10, global_units=10)
SHAPES = [(7, 5), (), (40, 30)]

pytestmark = pytest.mark.filterwarnings("ignore:HierarchicalRNN trains at")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return weights_file(tmp_path_factory.mktemp("weights"))


def lite(**arguments):
    return HierarchicalRNN(weights=None, config=LITE, seed=0, **arguments)


def test_thirty_bytes_a_parameter():
    model = new_model(lite(state_dtype="bfloat16"))
    model.optimizer.build(model.trainable_variables)
    own = [
        v
        for v in model.optimizer.variables
        if v.name.startswith(("state_", "offset_"))
    ]
    assert {v.dtype for v in own} == {"bfloat16"}
    held = sum(v.value.numpy().nbytes for v in own)
    assert held == 30 * model.count_params()
    everything = sum(
        map(
            variable_bytes,
            [*model.optimizer.variables, model.optimizer.meta_parameters],
        )
    )
    fresh = lite(state_dtype="bfloat16")
    assert slot_bytes(fresh, model.trainable_variables) == everything
    told = hrnn_opt.estimate(model, seconds=0.01)
    assert told.slot_bytes == everything


def start():
    rng = np.random.default_rng(1)
    return [rng.normal(size=shape).astype("float32") for shape in SHAPES]


class Trained:
    """Variables and state after 20 steps on given gradients."""

    def __init__(self, path, mode="eager", dtype="float32", first=0, **kwargs):
        self.variables = [keras.Variable(v, dtype=dtype) for v in start()]
        self.optimizer = HierarchicalRNN(0.125, weights=path, **kwargs)
        self.optimizer.swapped_by_callback = True
        self.optimizer.build(self.variables)
        self.optimizer.iterations.assign(first)
        apply = self.optimizer.apply
        if mode != "eager":
            apply = tf.function(
                apply, jit_compile=mode == "jit", autograph=False
            )
        rng = np.random.default_rng(2)
        for _ in range(20):
            apply([tf.constant(rng.normal(1, 1, s), dtype) for s in SHAPES])

    def theta(self):
        with self.optimizer.at_theta():
            values = [ops.convert_to_numpy(v) for v in self.variables]
        return np.concatenate([np.ravel(v).astype("float32") for v in values])

    def distance(self, other):
        """The distance of theta, relative to the distance from the start."""
        origin = np.concatenate([np.ravel(v) for v in start()])
        moved = np.linalg.norm(other.theta() - origin)
        return np.linalg.norm(self.theta() - other.theta()) / moved


@pytest.fixture(scope="module")
def exact(path):
    return Trained(path)


@pytest.fixture(scope="module")
def halved(path):
    return Trained(path, state_dtype="bfloat16")


def test_twenty_steps_are_near_those_of_float32(exact, halved):
    assert 1e-4 < halved.distance(exact) < 0.05


def test_other_bits_are_another_trajectory_as_near(path, exact, halved):
    other = Trained(path, first=1000, state_dtype="bfloat16")
    assert 1e-4 < other.distance(halved) < 0.05
    again = Trained(path, state_dtype="bfloat16")
    np.testing.assert_array_equal(again.theta(), halved.theta())


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["graph", "jit"])
def test_packing_does_not_change_the_bits(path, halved, mode, monkeypatch):
    """Rounding is the same in many pieces as in one, also mapped under `jit`.

    Exceptions are numbers that differ by 1e-7 close to a random threshold.
    """
    monkeypatch.setattr(chunks, "PIECE", 32)
    chunks._pack.cache_clear()
    try:
        cut = Trained(path, mode, state_dtype="bfloat16")
    finally:
        chunks._pack.cache_clear()
    assert len(cut.optimizer._slots.states[2]) == 38
    assert cut.distance(halved) < 1e-3


def test_rounding_the_offset_leaves_theta(path):
    config, n = HierarchicalRNN(weights=path).config, 64
    rng = np.random.default_rng(0)
    value, offset = rng.normal(size=(2, n)).astype("float32")
    offset = ops.cast(ops.cast(offset, "bfloat16"), "float32")
    u = rng.normal(size=(2, n)).astype("float32")
    rows = np.ones((3, 1), "float32")
    seeds = rounding.rounding_keys(0, np.array([0]), 1)
    given = config, np.float32(1), value
    phi, new = kernels.advance_chunk(*given, offset, u, rows)
    rounded_phi, rounded = kernels.advance_chunk(
        *given, ops.cast(offset, "bfloat16"), u, rows, seeds
    )
    np.testing.assert_allclose(
        rounded_phi - ops.cast(rounded, "float32"), phi - new, 1e-5, 1e-6
    )
    assert np.max(np.abs(rounded_phi - phi)) > 1e-4


def test_variables_of_bfloat16_move_by_less_than_they_can_hold(path):
    """The 8-bit offsets restore on average what rounding takes from phi.

    Steps are about 2^-19, while the last bit of the offset is worth 2^-17.
    """
    ways, n = [], 2**14
    for state_dtype in ("float32", "bfloat16"):
        variable = keras.Variable(np.ones(n), dtype="bfloat16")
        optimizer = HierarchicalRNN(
            2.0**-20, weights=path, state_dtype=state_dtype
        )
        optimizer.swapped_by_callback = True
        optimizer.build([variable])
        (offset,) = optimizer._slots.offsets[0]
        offset.assign(ops.full((n,), 2.0**-10))
        for _ in range(10):
            optimizer.apply([ops.ones(n, "bfloat16")])
        np.testing.assert_array_equal(ops.cast(variable, "float32"), 1)
        offset = ops.convert_to_numpy(optimizer._slots.offset(0))
        ways.append(np.mean(2.0**-10 - offset.astype(float)))
    assert 2.0**-20 < abs(ways[0]) < 2.0**-15
    assert ways[1] == pytest.approx(ways[0], rel=0.05)


def test_averages_and_swap(path, exact):
    averaged = {"use_ema": True, "ema_momentum": 0.75}
    one, other = (
        Trained(path, state_dtype=dtype, **averaged)
        for dtype in ("float32", "bfloat16")
    )
    for a, b, first in zip(
        one.optimizer._model_variables_moving_average,
        other.optimizer._model_variables_moving_average,
        start(),
        strict=True,
    ):
        moved = np.linalg.norm(a.numpy() - first)
        assert np.linalg.norm(b.numpy() - a.numpy()) < 0.05 * moved
    phi = [v.numpy() for v in other.variables]
    assert other.optimizer.swap_to_theta() and other.optimizer.swap_to_phi()
    for value, before in zip(other.variables, phi, strict=True):
        np.testing.assert_allclose(value.numpy(), before, 1e-5, 1e-6)


@pytest.mark.filterwarnings("ignore:HierarchicalRNN")
def test_guard_hands_over(path):
    trained = Trained(path, state_dtype="bfloat16", guard=True)
    optimizer = trained.optimizer
    bad = [tf.constant(np.full(shape, np.nan), "float32") for shape in SHAPES]
    for _ in range(10):
        optimizer.apply(bad)
    assert optimizer.rollbacks == 1
    before = trained.theta()
    for _ in range(20):
        optimizer.apply([tf.ones(shape) for shape in SHAPES])
    assert np.all(trained.theta() < before)
    assert optimizer._slots.guard.good.dtype == "float32"
    assert optimizer._slots.states[0][0].dtype == "bfloat16"


def test_telemetry_reads_it(exact, halved):
    wanted = telemetry.statistics(exact.optimizer)
    got = telemetry.statistics(halved.optimizer)
    for name, value in wanted._asdict().items():
        np.testing.assert_allclose(
            getattr(got, name), value, 0.1, 0.1, err_msg=name
        )


@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_saved_and_continued_is_uninterrupted(path, tmp_path, jit_compile):
    def swap():
        return [AttentionSwap()]

    model = new(path, state_dtype="bfloat16")
    model.jit_compile = jit_compile
    fit(model, swap())
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    whole = keras.saving.load_model(tmp_path / "model.keras")
    weights = new(path, state_dtype="bfloat16")
    weights.optimizer.build(weights.trainable_variables)
    weights.load_weights(tmp_path / "model.weights.h5")
    assert whole.optimizer.state_dtype == "bfloat16"
    assert whole.optimizer._slots.states[0][0].dtype == "bfloat16"
    fit(model, swap())
    for other in (whole, weights):
        other.jit_compile = jit_compile
        fit(other, swap())
        assert_identical(everything(model), everything(other))


def test_checkpoint_of_tensorflow_continues(path, tmp_path):
    model, other = (new(path, state_dtype="bfloat16") for _ in range(2))
    fit(model)
    saved = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    file = saved.save(tmp_path / "saved")
    other.optimizer.build(other.trainable_variables)
    into = tf.train.Checkpoint(model=other, optimizer=other.optimizer)
    into.restore(file).assert_consumed()
    fit(model)
    fit(other)
    assert_identical(everything(model), everything(other))


TYPES = [("float32", "bfloat16"), ("bfloat16", "float32")]


@pytest.mark.parametrize("saved, own", TYPES)
def test_the_other_state_is_refused(path, tmp_path, saved, own):
    model, other = new(path, state_dtype=saved), new(path, state_dtype=own)
    fit(model)
    file = tmp_path / "saved.weights.h5"
    model.save_weights(file)
    other.optimizer.build(other.trainable_variables)
    before = [v.numpy() for v in other.optimizer.variables]
    text = f"has another state_dtype: expected {own}. Received: {saved}"
    with pytest.raises(ValueError, match=text):
        other.load_weights(file)
    for variable, value in zip(other.optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.parametrize("saved, own", TYPES)
def test_the_other_checkpoint_is_refused(path, tmp_path, saved, own):
    model, other = new(path, state_dtype=saved), new(path, state_dtype=own)
    fit(model)
    file = tf.train.Checkpoint(optimizer=model.optimizer).save(tmp_path / "a")
    other.optimizer.build(other.trainable_variables)
    into = tf.train.Checkpoint(optimizer=other.optimizer)
    # TensorFlow's message calls float32 "float".
    names = (t.replace("float32", "float") for t in (own, saved))
    text = "expected dtype {} does not equal original dtype {}".format(*names)
    before = [v.numpy() for v in other.optimizer.variables]
    with pytest.raises(tf.errors.InvalidArgumentError, match=text):
        into.restore(file)
    for variable, value in zip(other.optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
