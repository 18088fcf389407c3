"""The events of `Telemetry` agree with the optimizer's state."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN, callbacks, telemetry
from hrnn_opt.model import chunks
from hrnn_opt.rule.config import WITHOUT_TENSOR_RNN
from tests.reference import momentum_logits
from tests.reference_pair import weights_file
from tests.test_resuming import everything, fit, new, new_model, train

pytestmark = pytest.mark.filterwarnings("ignore:HierarchicalRNN trains at")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return weights_file(
        tmp_path_factory.mktemp("weights"), length_unit=0.5, wide_inputs=2.0
    )


def by_hand(optimizer, path):
    """Maps tags to numbers, with NumPy, one tensor after the other."""
    arrays = {k: v for k, v in np.load(path).items() if k != "metadata"}
    config, found = optimizer.config, {}
    lr = float(optimizer.learning_rate)
    p, s = config.param_units, config.timescales
    variables = optimizer._trainable_variables
    for states, v in zip(optimizer._slots.states, variables, strict=True):
        packed = np.concatenate([piece.numpy() for piece in states], axis=-1)
        packed = packed.astype("float64")
        h, g_bar, r = np.split(packed[: p + 2 * s], [p, p + s])
        beta = np.stack([momentum_logits(arrays, column) for column in h.T], 1)
        steps = -1 / np.log(1 / (1 + np.exp(-beta)))
        m = np.divide(g_bar, r, out=np.zeros_like(r), where=r > 0)
        values = {
            "momentum_steps": np.exp(np.mean(np.log(steps[0]))),
            "magnitude_steps": np.exp(np.mean(np.log(steps[1]))),
            "gradient": np.sqrt(np.mean(g_bar[0] ** 2)),
            "slow_gradient": np.sqrt(np.mean(g_bar[-1] ** 2)),
            "magnitude": np.sqrt(np.mean(r[-1] ** 2)),
            "rescaled_gradient": np.sqrt(np.mean(m**2)),
        }
        if config.relative_learning_rate:
            inputs = np.prod(v.shape[:-1]) if len(v.shape) > 1 else 1
            wide = config.wide_inputs or np.inf
            share = np.sqrt(min(1, wide / inputs))
            length = config.length_unit * lr * share
            lengths = np.log10(length * np.exp(packed[-1]))
            values["step_length"] = np.mean(lengths)
            values["step_length_spread"] = np.std(lengths)
        found |= {f"{kind}/{v.path}": x for kind, x in values.items()}
    found["optimizer/learning_rate"] = lr
    found["optimizer/skipped_steps"] = int(optimizer._slots.skipped)
    return found


def read_back(folder):
    """Maps steps to tags to numbers."""
    found = {}
    for file in sorted(folder.glob("events*")):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(event.step, {})[value.tag] = number
    return found


class Remember(keras.callbacks.Callback):
    """Stores the computation by hand after every step."""

    def __init__(self, path):
        super().__init__()
        self.path, self.kept = path, {}

    def on_train_batch_end(self, batch, logs=None):
        optimizer = self.model.optimizer
        step = int(optimizer.iterations)
        self.kept[step] = by_hand(optimizer, self.path)


def assert_same(got, wanted):
    assert got.keys() == wanted.keys()
    for tag, value in wanted.items():
        np.testing.assert_allclose(got[tag], value, 1e-4, 1e-7, err_msg=tag)


def test_events_are_the_state(path, tmp_path):
    model, remember = new(path), Remember(path)
    fit(model, 0, 4, callbacks.Telemetry(tmp_path / "logs", every=6), remember)
    found = read_back(tmp_path / "logs")
    # 16 steps in epochs of 4: intervals do not end with epochs.
    assert sorted(found) == [6, 12]
    for step, values in found.items():
        assert_same(values, remember.kept[step])
    kernel = f"step_length/{model.trainable_variables[0].path}"
    assert found[6][kernel] != found[12][kernel]


def test_steps_of_one_execution_count(path, tmp_path):
    model = new(path)
    model.compile(model.optimizer, "mse", steps_per_execution=2)
    fit(model, 0, 3, callbacks.Telemetry(tmp_path, every=4))
    assert sorted(read_back(tmp_path)) == [4, 8, 12]


def test_training_is_untouched(path, tmp_path):
    watched, plain = new(path), new(path)
    fit(watched, 0, 2, callbacks.Telemetry(tmp_path, every=1))
    fit(plain, 0, 2)
    for a, b in zip(everything(watched), everything(plain), strict=True):
        np.testing.assert_array_equal(a, b)


def test_skipped_steps_and_learning_rate_are_told(path, tmp_path):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [1], [0.5, 0.0]
    )
    model = new_model(HierarchicalRNN(schedule, path))
    x = np.full((8, 4), np.nan)
    model.fit(
        x, np.zeros((8, 2)), 4, verbose=0,
        callbacks=[callbacks.Telemetry(tmp_path, every=1)],
    )  # fmt: skip
    found = read_back(tmp_path)
    assert [found[n]["optimizer/skipped_steps"] for n in (1, 2)] == [1, 2]
    assert [found[n]["optimizer/learning_rate"] for n in (1, 2)] == [0.5, 0]
    # The logarithm of a zero length is not written.
    kernel = f"step_length/{model.trainable_variables[0].path}"
    assert kernel in found[1] and kernel not in found[2]


@pytest.mark.parametrize(
    "ablation",
    [
        {"relative_learning_rate": False},
        {"attention": False, **WITHOUT_TENSOR_RNN},
    ],
)
def test_ablations(tmp_path, ablation):
    path = weights_file(tmp_path, **ablation)
    model, remember = new(path), Remember(path)
    fit(model, 0, 1, callbacks.Telemetry(tmp_path, every=4), remember)
    assert_same(read_back(tmp_path)[4], remember.kept[4])


def test_pieces_and_padding(path, monkeypatch):
    # Tensors of several pieces, packed chunks, one with a single parameter.
    monkeypatch.setattr(chunks, "PIECE", 256)
    monkeypatch.setattr(chunks, "WIDTHS", (16, 32))
    sizes = (600, 256, 1, 30)
    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.normal(size=n)) for n in sizes]
    optimizer = HierarchicalRNN(0.125, path)
    for scale in (1e-30, 1e-25, 1e-28):
        grads = [scale * rng.normal(size=n) for n in sizes]
        optimizer.apply([tf.constant(g, "float32") for g in grads], variables)
    found = telemetry.statistics(optimizer)
    wanted = by_hand(optimizer, path)
    for kind, values in found._asdict().items():
        for value, v in zip(values, variables, strict=True):
            np.testing.assert_allclose(
                value, wanted[f"{kind}/{v.path}"], 1e-4, err_msg=kind
            )


def test_wrapped_optimizer(path, tmp_path):
    inner = HierarchicalRNN(2.0**-6, path)
    model = new_model(keras.optimizers.LossScaleOptimizer(inner))
    fit(model, 0, 1, callbacks.Telemetry(tmp_path, every=4))
    kernel = f"step_length/{model.trainable_variables[0].path}"
    assert kernel in read_back(tmp_path)[4]


def test_misuse_is_refused(path, tmp_path):
    for every in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"`every` must.*every={every}"):
            callbacks.Telemetry(tmp_path, every=every)
    with pytest.raises(ValueError, match="not built"):
        telemetry.statistics(HierarchicalRNN(0.1, path))
    model = new_model(keras.optimizers.Adam())
    with pytest.raises(ValueError, match="needs a model with a Hierarch.*Adam"):
        fit(model, 0, 1, callbacks.Telemetry(tmp_path), swap=False)


def test_own_loop_reads_statistics(path):
    model = new(path)
    train(model, range(3))
    found = telemetry.statistics(model.optimizer)
    assert found.step_length.shape == (4,)
