"""Training resumed from a file is the training that was interrupted."""

import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN, callbacks, persistence
from tests.test_keras_features import weights_file

pytestmark = pytest.mark.filterwarnings("ignore:HierarchicalRNN trains at")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 4)).astype("float32")
Y = RNG.normal(size=(16, 2)).astype("float32")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return weights_file(tmp_path_factory.mktemp("weights"))


def new_model(optimizer, seed=0):
    """A tiny compiled model with a built optimizer."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activation="tanh"),
            keras.layers.Dense(2),
        ]
    )
    model.compile(optimizer, loss="mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def new(path, seed=0, **kwargs):
    return new_model(HierarchicalRNN(2.0**-6, path, **kwargs), seed)


def fit(model, first, last, *others, swap=True):
    """Epochs [first, last) of 4 steps."""
    swaps = [callbacks.AttentionSwap()] if swap else []
    model.fit(
        X,
        Y,
        batch_size=4,
        initial_epoch=first,
        epochs=last,
        shuffle=False,
        verbose=0,
        callbacks=[*swaps, *others],
    )


def train(model, batches):
    """Ends at phi, unlike `fit`."""
    for k in batches:
        part = slice(4 * (k % 4), 4 * (k % 4) + 4)
        model.train_on_batch(X[part], Y[part])


def everything(model):
    variables = model.variables + model.optimizer.variables
    return [v.numpy() for v in variables]


def assert_same(model, wanted):
    got = everything(model)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def through_keras(model, folder, path):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def through_weights(model, folder, path):
    model.save_weights(folder / "model.weights.h5")
    other = new(path, seed=1)
    other.load_weights(folder / "model.weights.h5")
    return other


def through_checkpoint(model, folder, path):
    saved = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    name = saved.write(str(folder / "checkpoint"))
    other = new(path, seed=1)
    into = tf.train.Checkpoint(model=other, optimizer=other.optimizer)
    into.read(name).assert_consumed()
    return other


WAYS = [through_keras, through_weights, through_checkpoint]


@pytest.mark.parametrize("way", WAYS)
def test_fit_resumes(path, tmp_path, way):
    whole, half = new(path), new(path)
    fit(whole, 0, 4)
    fit(half, 0, 2)
    before = everything(half)
    half = way(half, tmp_path, path)
    assert half.optimizer.holds_theta
    assert_same(half, before)
    fit(half, 2, 4)
    assert_same(half, everything(whole))


@pytest.mark.parametrize("way", WAYS)
def test_own_loop_resumes_at_phi(path, tmp_path, way):
    whole, half = new(path), new(path)
    train(whole, range(7))
    train(half, range(3))
    half = way(half, tmp_path, path)
    assert not half.optimizer.holds_theta
    offsets = [half.optimizer._slots.offset(t) for t in range(4)]
    assert all(np.max(np.abs(offset)) > 1e-4 for offset in offsets)
    train(half, range(3, 7))
    assert_same(half, everything(whole))


@pytest.mark.parametrize("swap", [True, False])
def test_resumes_from_model_checkpoint(path, tmp_path, swap):
    saver = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    whole = new(path)
    fit(whole, 0, 4, saver, swap=swap)
    half = keras.saving.load_model(tmp_path / "2.keras")
    assert half.optimizer.holds_theta == swap
    fit(half, 2, 4, swap=swap)
    assert_same(half, everything(whole))


@pytest.mark.parametrize("swap", [True, False])
def test_resumes_from_backup(path, tmp_path, swap):
    class Crash(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch) == (2, 1):
                raise InterruptedError

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    whole, half = new(path), new(path)
    fit(whole, 0, 4, swap=swap)
    with pytest.raises(InterruptedError):
        fit(half, 0, 4, backup(), Crash(), swap=swap)
    half = new(path, seed=1)
    fit(half, 0, 4, backup(), swap=swap)
    assert_same(half, everything(whole))


@pytest.mark.parametrize("name", ["file", "pretrained", None])
@pytest.mark.parametrize("how", ["from_config", "serialize"])
def test_config_gives_the_same_steps(path, name, how):
    name = path if name == "file" else name
    optimizer = HierarchicalRNN(
        keras.optimizers.schedules.ExponentialDecay(2.0**-6, 3, 0.5),
        weights=name,
        weight_decay=0.5,
        clipnorm=0.25,
        use_ema=True,
        ema_momentum=0.75,
        ema_overwrite_frequency=2,
        gradient_accumulation_steps=2,
        name="mine",
    )
    if how == "serialize":
        text = json.dumps(keras.optimizers.serialize(optimizer))
        copy = keras.optimizers.deserialize(json.loads(text))
    else:
        copy = HierarchicalRNN.from_config(optimizer.get_config())
        config = json.loads(json.dumps(HierarchicalRNN(1.0, path).get_config()))
        assert HierarchicalRNN.from_config(config).get_config() == config
    assert copy.name == "mine"
    first, second = new_model(optimizer), new_model(copy)
    train(first, range(5))
    train(second, range(5))
    assert_same(second, everything(first))


def test_model_outlives_its_weights_file(tmp_path):
    path = weights_file(tmp_path)
    whole, half = new(path), new(path)
    fit(whole, 0, 3)
    fit(half, 0, 1)
    half.save(tmp_path / "first.keras")
    config = half.optimizer.get_config()
    path.unlink()
    for epoch, name in enumerate(["first.keras", "second.keras"], 1):
        half = keras.saving.load_model(tmp_path / name)
        assert half.optimizer.get_config() == config
        fit(half, epoch, epoch + 1)
        half.save(tmp_path / "second.keras")
    assert_same(half, everything(whole))
    with pytest.raises(FileNotFoundError, match="noisy0"):
        train(new_model(HierarchicalRNN.from_config(config)), [0])


def test_weights_file_replaced_by_another(tmp_path):
    path = weights_file(tmp_path)
    config = HierarchicalRNN(1.0, path).get_config()
    weights_file(tmp_path, seed=1).replace(path)
    with pytest.raises(ValueError, match="no longer names"):
        train(new_model(HierarchicalRNN.from_config(config)), [0])


@pytest.fixture
def store(path):
    """What a file holds for a trained optimizer."""
    model, held = new(path), {}
    train(model, range(2))
    model.optimizer.save_own_variables(held)
    return held


def assert_refused(path, store, message):
    model = new(path)
    before = everything(model)
    with pytest.raises(ValueError, match=message):
        model.optimizer.load_own_variables(store)
    assert_same(model, before)


@pytest.mark.parametrize("key", ["state_version", "rule_version"])
def test_other_version_is_refused(path, store, key, monkeypatch):
    monkeypatch.setattr(persistence, key.upper(), 99)
    assert_refused(path, store, f"another {key}: expected 99. Received: 1")


def test_other_config_is_refused(path, store, tmp_path):
    other = weights_file(tmp_path, shortcut=False)
    assert_refused(other, store, "another config")


@pytest.mark.parametrize("shape", [(3,), ()])
def test_wrong_shape_is_refused(path, store, shape):
    last = str(len(store) - 2)
    store[last] = np.zeros(shape, "float32")
    assert_refused(path, store, "does not fit this model")


@pytest.mark.parametrize("there", ["Adam", "fewer", "unbuilt"])
def test_other_state_is_skipped_with_a_warning(path, store, there):
    model = new(path)
    if there == "Adam":
        store = {}
        new_model(keras.optimizers.Adam()).optimizer.save_own_variables(store)
    elif there == "fewer":
        del store["3"]
    optimizer = model.optimizer
    if there == "unbuilt":
        optimizer = HierarchicalRNN(1.0, path)
    before = everything(model)
    with pytest.warns(UserWarning, match="Skipping the state"):
        optimizer.load_own_variables(store)
    assert_same(model, before)


def test_adam_skips_our_state(path, store):
    adam = new_model(keras.optimizers.Adam())
    before = everything(adam)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adam.optimizer.load_own_variables(store)
    assert_same(adam, before)
