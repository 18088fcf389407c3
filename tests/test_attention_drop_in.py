"""Rules with attention in use: theta is what users expect."""

import gc
import os
import signal
import warnings
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN, callbacks
from tests.reference_pair import weights_file
from tests.test_drop_in import network

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 4)).astype("float32")
Y = np.sin(X @ RNG.normal(size=(4, 1))).astype("float32")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return weights_file(tmp_path_factory.mktemp("weights"))


def fit(model, epochs, *watching, swap=True, **kwargs):
    swaps = [callbacks.AttentionSwap()] if swap else []
    model.fit(
        X,
        Y,
        16,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[*swaps, *watching],
        **kwargs,
    )


def test_a_frozen_variable_stays_at_theta(path):
    model = network(HierarchicalRNN(weights=path))
    fit(model, 1)
    first, last = model.layers
    first.trainable = False
    model.compile(model.optimizer, "mse")
    kernel, other = first.kernel.numpy(), last.kernel.numpy()
    seen = []
    see = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(first.kernel.numpy())
    )
    fit(model, 2, see)
    for value in (*seen, first.kernel):
        np.testing.assert_array_equal(value, kernel)
    assert np.any(last.kernel.numpy() != other)
    # Once unfrozen, it is ahead of theta again.
    first.trainable = True
    model.compile(model.optimizer, "mse")
    fit(model, 1)
    assert np.any(first.kernel.numpy() != kernel)
    assert np.any(model.optimizer._slots.offset(0).numpy() != 0)


@pytest.mark.parametrize("order", ["before", "after"])
def test_swapping_averages_does_not_change_training(path, order):
    def trained(average):
        model = network(HierarchicalRNN(weights=path, use_ema=True))
        swap = callbacks.AttentionSwap()
        both = [swap]
        if average:
            both.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
        if order == "before":
            both.reverse()
        fit(model, 3, *both, swap=False, validation_data=(X, Y))
        return model

    with_average, without = trained(True), trained(False)
    pairs = zip(with_average.get_weights(), without.get_weights(), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, 0, 1e-6)
    pairs = zip(
        with_average.optimizer.variables,
        without.optimizer.variables,
        strict=True,
    )
    for a, b in pairs:
        np.testing.assert_allclose(a, b, 1e-4, 1e-5)


@pytest.mark.parametrize("swap", [False, True])
def test_masked_weights_are_zero_after_fit(path, swap):
    model = network(HierarchicalRNN(weights=path))
    kernel = model.layers[0].kernel
    mask = (RNG.random(kernel.shape) < 0.5).astype("float32")
    prune = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: kernel.assign(kernel * mask)
    )
    fit(model, 2, prune, swap=swap)
    assert np.all(kernel.numpy()[mask == 0] == 0)
    assert np.all(kernel.numpy()[mask == 1] != 0)


class TwoOptimizers(keras.Model):
    """A model with a custom `train_step`."""

    def __init__(self, first, second):
        super().__init__()
        self.hidden = keras.layers.Dense(8, "tanh")
        self.last = keras.layers.Dense(1)
        self.first, self.others = first, {"second": second}

    def call(self, x):
        return self.last(self.hidden(x))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x) - y) ** 2)
        own = self.hidden.trainable_variables
        gradients = tape.gradient(loss, self.trainable_variables)
        self.first.apply(gradients[: len(own)], own)
        self.others["second"].apply(
            gradients[len(own) :], self.last.trainable_variables
        )
        return {"loss": loss}


@pytest.mark.parametrize("explicit", [False, True])
def test_optimizers_of_a_model_with_its_own_train_step(path, explicit):
    optimizers = [HierarchicalRNN(weights=path) for _ in range(2)]
    model = TwoOptimizers(*optimizers)
    model.compile()
    model.optimizer = None
    swap = callbacks.AttentionSwap(optimizers=optimizers if explicit else None)
    fit(model, 1, swap, swap=False)
    for optimizer in optimizers:
        assert optimizer.holds_theta
        assert int(optimizer.iterations) == 2


def test_tells_if_there_is_no_optimizer_to_look_after():
    model = network(keras.optimizers.Adam())
    with pytest.warns(UserWarning, match="AttentionSwap found no Hierarch"):
        fit(model, 1)


@pytest.fixture
def interruptible():
    """Sets the handler of a foreground Python; elsewhere Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_theta_after_an_interrupt(path, interruptible):
    model = network(HierarchicalRNN(weights=path))

    def interrupt(batch, logs):
        if batch == 1:
            assert not model.optimizer.holds_theta
            os.kill(os.getpid(), signal.SIGINT)

    stop = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(model, 3, stop)
    assert model.optimizer.holds_theta
    assert signal.getsignal(signal.SIGINT) is interruptible


def test_what_failed_leaves_nobody_waiting_for_an_interrupt(
    path, interruptible
):
    def fail(batch, logs):
        raise RuntimeError("out of luck")

    model = network(HierarchicalRNN(weights=path))
    broken = keras.callbacks.LambdaCallback(on_train_batch_end=fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(model, 1, broken)
    kept = weakref.ref(model)
    del model, broken
    keras.backend.clear_session()
    gc.collect()
    assert kept() is None
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is interruptible


WARNING = "HierarchicalRNN trains at an attended point"


def warned(function):
    """The warnings about phi that a call causes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [w for w in caught if str(w.message).startswith(WARNING)]


def test_the_warning_comes_where_phi_is_about_to_be_used(path, tmp_path):
    def training(**kwargs):
        model = network(HierarchicalRNN(weights=path))
        return lambda: fit(model, 1, swap=False, **kwargs)

    assert not warned(training())
    for kwargs in ({"validation_data": (X, Y)}, {"validation_split": 0.5}):
        (one,) = warned(training(**kwargs))
        assert one.filename == __file__
    model = network(HierarchicalRNN(weights=path))
    save = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: model.save(tmp_path / "m.keras")
    )
    (one,) = warned(lambda: fit(model, 1, save, swap=False))
    assert one.filename == __file__
    # At the end of training the model holds theta.
    assert not warned(lambda: model.save(tmp_path / "m.keras"))
    # In a custom loop, what follows is not known.
    variable = keras.Variable(np.ones(3, "float32"))
    optimizer = HierarchicalRNN(weights=path)
    loop = lambda: optimizer.apply([tf.ones(3)], [variable])  # noqa: E731
    assert len(warned(loop)) == 1 and not warned(loop)


def test_the_warning_is_remembered_for_one_fit(path):
    model = network(HierarchicalRNN(weights=path))
    model.run_eagerly = True
    both = {"validation_data": (X, Y)}
    assert len(warned(lambda: fit(model, 2, swap=False, **both))) == 1
    assert not warned(lambda: fit(model, 1, **both))
    assert len(warned(lambda: fit(model, 1, swap=False, **both))) == 1
