"""Training curves: the same for all optimizers as in plain Keras."""

import keras
import numpy as np
import pytest

from hrnn_opt import HierarchicalRNN
from problems import pictures
from training.evaluation import curves, rivals
from training.figures.tasks import TASKS

STEPS, BATCH, EVERY = 20, 32, 10


@pytest.fixture(scope="module")
def split():
    return pictures.load("digits", 200)


def model(seed=0):
    return TASKS["digits MLP"].model((8, 8, 1), seed)


def run(optimizer, split, seed=0, every=EVERY):
    order = curves.batches(len(split.x_train), STEPS, BATCH, seed)
    return curves.train(
        model(seed), optimizer, split.x_train, split.y_train, order, every
    )


@pytest.mark.parametrize("make", [
    lambda: keras.optimizers.Adam(3e-3), lambda: HierarchicalRNN()
], ids=["Adam", "own"])  # fmt: skip
def test_a_curve_is_that_of_fit(split, make):
    """Compiling beforehand changes nothing, and losses are taken at theta."""
    curve = run(make(), split)
    net = model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = make()
    optimizer.swapped_by_callback = True
    net.compile(optimizer=optimizer, loss=loss)
    wanted = [float(loss(split.y_train, net(split.x_train)))]
    order = curves.batches(len(split.x_train), STEPS, BATCH, 0)
    for block in order.reshape(2, -1):
        if hasattr(optimizer, "swap_to_phi"):
            optimizer.swap_to_phi()
        net.fit(
            split.x_train[block], split.y_train[block], batch_size=BATCH,
            shuffle=False, verbose=0,
        )  # fmt: skip
        wanted.append(float(loss(split.y_train, net(split.x_train))))
    # Rounding in a different order, amplified by 20 steps.
    np.testing.assert_allclose(curve.losses, wanted, 2e-3)
    assert wanted[-1] < 0.8 * wanted[0]
    np.testing.assert_array_equal(curve.steps, [0, 10, 20])
    assert curve.seconds[0] == 0 and np.all(np.diff(curve.seconds) > 0)


@pytest.mark.parametrize("name", rivals.available())
def test_every_rival_trains_from_the_same_start(split, name):
    rival = rivals.available()[name]
    own = run(rival.make(rival.default), split)
    again = run(keras.optimizers.SGD(0.0), split)
    assert own.losses[0] == again.losses[0] == again.losses[-1]
    assert own.losses[-1] < own.losses[0]


def test_batches_go_through_every_epoch():
    order = curves.batches(10, 5, 4, seed=3)
    assert order.shape == (5, 4)
    flat = order.ravel()
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert list(flat[:10]) != list(flat[10:])
    np.testing.assert_array_equal(order, curves.batches(10, 5, 4, seed=3))
    assert np.any(order != curves.batches(10, 5, 4, seed=4))


def test_numbers_there_and_back():
    curve = curves.Curve.from_numbers([3.0, 2.0, 0.0, 0.5], 10)
    np.testing.assert_array_equal(curve.steps, [0, 10])
    np.testing.assert_array_equal(curve.losses, [3, 2])
    assert curve.numbers() == [3.0, 2.0, 0.0, 0.5]


def test_steps_in_whole_blocks(split):
    with pytest.raises(ValueError, match="divide the 20 steps. Received: .*7"):
        run(keras.optimizers.Adam(), split, every=7)


def test_default_rates_are_those_of_keras():
    for rival in rivals.available().values():
        kind = type(rival.make(rival.default))
        assert float(kind().learning_rate) == pytest.approx(rival.default)
        assert rival.default in rival.grid and len(set(rival.grid)) == 6
        rate = float(rival.make(0.3).learning_rate)
        assert rate == pytest.approx(0.3)


def test_muon_leaves_the_last_layer_to_adamw():
    if "Muon" not in rivals.available():
        pytest.skip("this Keras has no Muon")
    optimizer = rivals.available()["Muon"].make(1e-3)
    net = model()
    optimizer.build(net.trainable_variables)
    by_adam = [
        v.path for v in net.trainable_variables
        if optimizer._should_use_adamw(v)
    ]  # fmt: skip
    kernels = [path for path in by_adam if "kernel" in path]
    assert len(kernels) == 1 and rivals.OUTPUT in kernels[0]


def test_best_by_hand():
    assert rivals.best({0.1: 2.0, 0.2: float("nan"), 0.3: 1.0}) == 0.3
    rival = rivals.available()["Adam"]
    assert rivals.at_edge(3e-2, rival) and not rivals.at_edge(1e-2, rival)
