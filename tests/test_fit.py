"""`fit` in all its modes, and whether the model holds theta or phi."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN, callbacks
from tests.reference_pair import ReferencePair, weights_file
from tests.test_resuming import X, Y, everything, fit, new, new_model, train

MISSING = "HierarchicalRNN trains at"

pytestmark = pytest.mark.filterwarnings(f"ignore:{MISSING}")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return weights_file(tmp_path_factory.mktemp("weights"))


@contextlib.contextmanager
def policy(name):
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy(name)
    keras.config.set_floatx("float64" if name == "float64" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])


@pytest.fixture
def float64():
    with policy("float64"):
        yield


@pytest.fixture
def float16():
    with policy("mixed_float16"):
        yield


def values(model):
    return [v.numpy() for v in model.trainable_variables]


def theta_and_phi(model):
    """theta and phi of a model that holds phi."""
    slots = model.optimizer._slots
    phi = values(model)
    return [p - slots.offset(t).numpy() for t, p in enumerate(phi)], phi


def loss_at(variables):
    kernel, bias, out_kernel, out_bias = variables
    prediction = np.tanh(X @ kernel + bias) @ out_kernel + out_bias
    return np.mean((prediction - Y) ** 2)


class See(keras.callbacks.Callback):
    """Calls functions with the model at the events that `fit` names."""

    def __init__(self, **functions):
        super().__init__()
        for name, function in functions.items():
            setattr(self, name, lambda _, logs, f=function: f(self.model, logs))


def close_to_an_ulp(some, others, also):
    for a, b, c in zip(some, others, also, strict=True):
        ulp = np.spacing(np.maximum(np.abs(b), np.abs(c)))
        assert np.all(np.abs(a - b) <= ulp)


def fit_like_reference(path, rates, compiled, *others):
    """Fits both for one epoch per rate, and compares the whole state."""
    model = new_model(keras.optimizers.SGD())
    pair = ReferencePair(path, rates[0], variables=model.trainable_variables)
    other = keras.models.clone_model(model)
    model.compile(pair.optimizer, "mse", **compiled)
    fit(model, 0, len(rates), *others)
    reference = pair.reference
    for rate in rates:
        reference.learning_rate = rate
        for k in range(0, 16, 4):
            other.set_weights(reference.variables)
            with tf.GradientTape() as tape:
                errors = other(X[k : k + 4]) - Y[k : k + 4]
                loss = tf.reduce_mean(errors**2)
            reference.apply(tape.gradient(loss, other.trainable_variables))
    reference.to_theta()
    pair.check(1e-8)


@pytest.mark.parametrize(
    "compiled",
    [
        {"jit_compile": False},
        {"jit_compile": True},
        {"jit_compile": "auto"},
        {"run_eagerly": True},
        {"jit_compile": False, "steps_per_execution": 4},
        {"jit_compile": True, "steps_per_execution": 4},
    ],
    ids=str,
)
def test_fit_follows_the_reference(path, float64, compiled):
    fit_like_reference(path, [0.125] * 2, compiled)


def test_reduce_on_plateau_scales_the_steps(path, float64):
    reduce = keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.5, patience=1, min_delta=1e9
    )
    rates = [0.125, 0.125, 0.0625, 0.03125]
    fit_like_reference(path, rates, {"jit_compile": False}, reduce)


def test_mixed_float16_learns_and_saves(float16, tmp_path):
    # Noisy meta-parameters do not learn, but initial ones do.
    model, seen = new("pretrained"), []
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    at_end = See(on_epoch_end=lambda model, logs: seen.append(logs["loss"]))
    fit(model, 0, 5, at_end)
    assert np.isfinite(seen).all() and seen[-1] < seen[0]
    assert all(np.isfinite(v).all() for v in everything(model))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for both in (model, again):
        fit(both, 5, 6)
    for a, b in zip(everything(model), everything(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_float16_overflow_leaves_state_alone(path, float16):
    model = new(path)
    train(model, range(3))
    wrapper, rule = model.optimizer, model.optimizer.inner_optimizer
    before = [v.numpy() for v in rule.variables], values(model)
    wrapper.dynamic_scale.assign(2.0**126)
    train(model, [3])
    assert float(wrapper.dynamic_scale) == 2.0**125
    after = [v.numpy() for v in rule.variables], values(model)
    for a, b in zip(sum(before, []), sum(after, []), strict=True):
        np.testing.assert_array_equal(a, b)
    wrapper.dynamic_scale.assign(2.0**10)
    train(model, range(3, 6))
    assert int(rule.iterations) == 6
    assert all(np.isfinite(v).all() for v in values(model))
    assert rule.skipped_steps == 0


def test_validation_is_at_theta(path):
    model, points, got = new(path), [], []

    def remember(model, logs):
        points.append(theta_and_phi(model))

    def validated(model, logs):
        got.append(logs["val_loss"])
        close_to_an_ulp(values(model), *points[-1])

    model.fit(
        X,
        Y,
        4,
        epochs=3,
        shuffle=False,
        verbose=0,
        validation_data=(X, Y),
        callbacks=[
            callbacks.AttentionSwap(),
            See(on_train_batch_end=remember, on_epoch_end=validated),
        ],
    )
    points = points[3::4]
    at_theta = [loss_at(theta) for theta, _ in points]
    np.testing.assert_allclose(got, at_theta, 1e-5)
    at_phi = np.asarray([loss_at(phi) for _, phi in points])
    assert np.min(np.abs(at_phi - got)) > 1e-3 * np.max(got)


@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_evaluation_amid_training_returns_to_phi(path, method):
    model = new(path)
    train(model, range(3))
    theta, phi = theta_and_phi(model)
    swap = [callbacks.AttentionSwap()]
    if method == "evaluate":
        loss = model.evaluate(X, Y, 4, 0, callbacks=swap)
    else:
        output = model.predict(X, 4, 0, callbacks=swap)
        loss = np.mean((output - Y) ** 2)
    np.testing.assert_allclose(loss, loss_at(theta), 1e-5)
    assert not model.optimizer.holds_theta
    close_to_an_ulp(values(model), phi, theta)


@pytest.mark.parametrize("swap", [True, False])
def test_theta_after_fit(path, swap):
    model, points = new(path), []
    remember = See(
        on_train_batch_end=lambda m, _: points.append(theta_and_phi(m))
    )
    fit(model, 0, 2, remember, swap=swap)
    close_to_an_ulp(values(model), *points[-1])
    assert model.optimizer.holds_theta


def test_early_stopping_restores_theta(path):
    model, thetas = new(path), []

    def score(model, logs):
        logs["score"] = [2.0, 1.0, 3.0, 4.0][len(thetas)]
        assert model.optimizer.holds_theta
        thetas.append(values(model))

    stop = keras.callbacks.EarlyStopping(
        "score", patience=2, restore_best_weights=True, mode="min"
    )
    fit(model, 0, 9, See(on_epoch_end=score), stop)
    assert len(thetas) == 4 and model.optimizer.holds_theta
    for a, b, last in zip(values(model), thetas[1], thetas[3], strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.any(a != last)


@pytest.mark.parametrize("swap", [True, False])
def test_missing_callback_warns_once(path, swap):
    model = new(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, 0, 2, swap=swap, validation_data=(X, Y))
        fit(model, 2, 3, swap=swap, validation_data=(X, Y))
    told = [w for w in caught if str(w.message).startswith(MISSING)]
    assert len(told) == (0 if swap else 1)


def test_swaps_tell_whether_they_did_anything(path):
    optimizer = HierarchicalRNN(2.0**-6, path)
    assert optimizer.holds_theta
    assert not optimizer.swap_to_theta() and not optimizer.swap_to_phi()
    model = new_model(optimizer)
    train(model, range(3))
    theta, phi = theta_and_phi(model)
    assert not optimizer.swap_to_phi()
    for done in (True, False):
        assert optimizer.swap_to_theta() == done and optimizer.holds_theta
        close_to_an_ulp(values(model), theta, theta)
    for done in (True, False):
        assert optimizer.swap_to_phi() == done and not optimizer.holds_theta
        close_to_an_ulp(values(model), phi, theta)


def test_at_theta_swaps_both_ways(path):
    model = new(path)
    train(model, range(3))
    theta, phi = theta_and_phi(model)
    optimizer = model.optimizer
    with pytest.raises(InterruptedError), optimizer.at_theta():
        with optimizer.at_theta():
            close_to_an_ulp(values(model), theta, phi)
        close_to_an_ulp(values(model), theta, phi)
        raise InterruptedError
    assert not optimizer.holds_theta
    close_to_an_ulp(values(model), phi, theta)
    optimizer.swap_to_theta()
    with optimizer.at_theta():
        pass
    assert optimizer.holds_theta


@pytest.mark.parametrize("which", ["without attention", "adam"])
def test_callback_does_nothing_without_attention(tmp_path, which):
    def trained(swap):
        if which == "adam":
            model = new_model(keras.optimizers.Adam())
        else:
            model = new(weights_file(tmp_path, attention=False))
        fit(model, 0, 2, swap=swap)
        return everything(model)

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # A warning says that there is nothing to swap.
        warnings.filterwarnings("ignore", "The callback AttentionSwap found")
        for a, b in zip(trained(True), trained(False), strict=True):
            np.testing.assert_array_equal(a, b)


def test_swap_on_batch(path):
    flags = []
    see = See(
        on_train_batch_begin=lambda m, _: flags.append(m.optimizer.holds_theta),
        on_train_batch_end=lambda m, _: flags.append(m.optimizer.holds_theta),
    )
    model, plain = new(path), new(path)
    batchwise = callbacks.AttentionSwap(swap_on_batch=True)
    fit(model, 0, 2, batchwise, see, swap=False)
    assert flags == [False, True] * 8
    fit(plain, 0, 2)
    for a, b in zip(values(model), values(plain), strict=True):
        np.testing.assert_allclose(a, b, 1e-3, 1e-4)
