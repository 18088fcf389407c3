"""Training resumed from a file equals the training that was interrupted."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN, callbacks
from tests.reference_pair import weights_file

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


def fit(model, first, last, *others, swap=True, **kwargs):
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
        **kwargs,
    )


def train(model, batches):
    """Trains in a custom loop, which ends at phi, unlike `fit`."""
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
