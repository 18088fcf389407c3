"""The effect of a changing learning rate, compared with a constant one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN

RATE, STEPS = 0.02, 400

RNG = np.random.default_rng(0)
X = RNG.normal(size=(256, 8)).astype("float32")
SLOPE = RNG.normal(size=(8, 1)).astype("float32")
NOISE = 0.5 * RNG.normal(size=(256, 1)).astype("float32")


class Task:
    """A small network on data with noise, traced once."""

    def __init__(self, classify, optimizer):
        keras.utils.set_random_seed(1)
        clean = np.sin(X @ SLOPE)
        self.x, self.y = tf.constant(X), tf.constant(clean + NOISE)
        if classify:
            self.y = tf.cast(self.y > 0, "float32")
        self.loss = (
            keras.losses.BinaryCrossentropy(from_logits=True)
            if classify
            else keras.losses.MeanSquaredError()
        )
        self.model = keras.Sequential(
            [
                keras.Input((8,)),
                keras.layers.Dense(16, "tanh"),
                keras.layers.Dense(1),
            ]
        )
        self.start = self.model.get_weights()
        self.optimizer = optimizer
        self.optimizer.build(self.model.trainable_variables)
        self.fresh = [v.numpy() for v in optimizer.variables]
        self.step = tf.function(self._step, autograph=False)

    def _step(self, first, rate):
        self.optimizer.learning_rate = rate
        rows = slice(first, first + 32)
        with tf.GradientTape() as tape:
            loss = self.loss(self.y[rows], self.model(self.x[rows]))
        variables = self.model.trainable_variables
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def final_loss(self, schedule):
        """Loss of all data after training at the rates schedule(n) RATE."""
        for variable, value in zip(
            self.optimizer.variables, self.fresh, strict=True
        ):
            variable.assign(value)
        self.model.set_weights(self.start)
        for n in range(STEPS):
            rate = np.float32(RATE * schedule(n / STEPS))
            self.step(tf.constant(n % 8 * 32), tf.constant(rate))
        return float(self.loss(self.y, self.model(self.x)))


def triangular(s, low=5e-4):
    return low + (1 - low) * (1 - abs(s * 6 % 2 - 1))


SCHEDULES = {
    "warm-up": lambda s: min(1, 3 * s + 1e-3),
    "tiny first": lambda s: 5e-5 if s < 0.4 else 1,
    "pause": lambda s: 5e-5 if 0.3 < s < 0.6 else 1,
    "pause at 0": lambda s: 0 if 0.3 < s < 0.6 else 1,
    "restarts": lambda s: (1 + np.cos(np.pi * (s * 3 % 1))) / 2,
    "triangular": triangular,
    "cosine": lambda s: (1 + np.cos(np.pi * s)) / 2,
}


def final_losses(classify, optimizer):
    """At a constant rate, and with every schedule."""
    task = Task(classify, optimizer)
    constant = task.final_loss(lambda s: 1)
    # First of all, it learns something.
    assert constant < 0.8 * task.final_loss(lambda s: 0)
    return constant, {k: task.final_loss(f) for k, f in SCHEDULES.items()}


@pytest.fixture(scope="module", params=[False, True])
def classify(request):
    return request.param


@pytest.fixture(scope="module")
def without_bases(classify, plain_weights):
    """What the default weights do where parameters keep their coordinates."""
    return final_losses(classify, HierarchicalRNN(RATE, weights=plain_weights))


def test_schedules_beside_a_constant_rate(without_bases):
    constant, losses = without_bases
    too_high = {k: v for k, v in losses.items() if not v < 1.5 * constant}
    assert not too_high, (constant, losses)


def test_schedules_in_eigenbases(classify, without_bases):
    """The constant rate ends at half the loss there: a harder measure.

    What a schedule costs then is compared with what it costs Adam, whose
    constant rate does as well.
    """
    constant, losses = final_losses(classify, HierarchicalRNN(RATE))
    assert constant < 0.8 * without_bases[0]
    too_high = {
        k: v for k, v in losses.items() if not v < 1.5 * without_bases[0]
    }
    assert not too_high, (without_bases, losses)
    adam, of_adam = final_losses(classify, keras.optimizers.Adam(RATE))
    too_high = {
        k: v
        for k, v in losses.items()
        if not v / constant < max(1.5, of_adam[k] / adam)
    }
    assert not too_high, (constant, losses, adam, of_adam)


def fit(rates, epochs):
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, "tanh"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(HierarchicalRNN(), "mse")
    history = model.fit(
        X,
        np.sin(X @ SLOPE),
        32,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[keras.callbacks.LearningRateScheduler(rates)],
    )
    return history.history["loss"], model


def test_a_rate_of_zero_freezes_everything():
    paused, model = fit(lambda e, _: 0.0 if e < 5 else RATE, 10)
    plain, other = fit(lambda e, _: RATE, 5)
    np.testing.assert_allclose(paused[5:], plain, 1e-6)
    assert plain[-1] < 0.9 * plain[0]
    pairs = zip(
        model.optimizer.variables[1:],
        other.optimizer.variables[1:],
        strict=True,
    )
    for paused_variable, variable in pairs:
        np.testing.assert_allclose(paused_variable, variable, 1e-4, 1e-6)


def test_what_a_tiny_rate_hid_is_no_step():
    """First steps at a rate are no longer than in runs that start with it."""

    def first_step(waits):
        variable = keras.Variable(np.ones(50), dtype="float32")
        optimizer = HierarchicalRNN(1e-6)
        gradient = tf.ones(50)
        for _ in range(waits):
            optimizer.apply([gradient], [variable])
        optimizer.learning_rate = 1e-2
        before = variable.numpy()
        optimizer.apply([gradient], [variable])
        return np.sqrt(np.mean((variable.numpy() - before) ** 2))

    # A constant gradient makes steps grow, here by a factor of a thousand.
    assert first_step(30) < 2 * first_step(0)
