"""`fit` and its callbacks, against the reference with gradients of a tape."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN, chunks
from hrnn_opt.callbacks import AttentionSwap
from tests.test_keras_features import Twins, weights_file

EPOCHS, BATCHES, BATCH, RATE = 2, 6, 4, 2.0**-5

# Gradients at the variables feed rounding back: after 12 steps the float32
# model is 2e-6 away from the reference, compiled by XLA 4e-5.
RTOL, ATOL = 1e-4, 1e-4

quiet = pytest.mark.filterwarnings("ignore:HierarchicalRNN trains at")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return weights_file(tmp_path_factory.mktemp("weights"))


def data():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(BATCHES * BATCH, 3)).astype("float32")
    return x, np.sin(x.sum(axis=1, keepdims=True)).astype("float32")


def new_model(optimizer=None, **compile_arguments):
    """Always with the same initial weights."""
    model = keras.Sequential(
        [
            keras.layers.Input((3,)),
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.Dense(1),
        ]
    )
    rng = np.random.default_rng(8)
    model.set_weights([rng.normal(size=v.shape) for v in model.weights])
    model.compile(optimizer, loss="mse", **compile_arguments)
    return model


def fit(model, callbacks=(), epochs=EPOCHS, **arguments):
    return model.fit(
        *data(),
        batch_size=BATCH,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
        **arguments,
    )


class Recorder(keras.callbacks.Callback):
    """What callbacks of this place in the list see."""

    def __init__(self):
        super().__init__()
        self.batches, self.epochs, self.logs, self.rates = {}, [], [], []

    def on_train_begin(self, logs=None):
        self.seen = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_train_batch_end(self, batch, logs=None):
        # Several steps an execution: of the last one, even beyond the epoch.
        step = self.epoch * BATCHES + min(batch, BATCHES - 1)
        self.batches[step] = self.model.get_weights()

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(self.model.get_weights())
        self.logs.append(dict(logs))


class Expected:
    """The reference's trajectory on the same model, data and batches."""

    def __init__(self, path, scales=(), rates=(), epochs=EPOCHS, jitted=False):
        self.model = new_model("sgd")
        reference = Twins(path, RATE, variables=self.model.trainable_variables)
        reference = reference.reference
        self.phi, self.theta = [], []
        x, y = data()
        for step in range(epochs * BATCHES):
            if rates:
                reference.learning_rate = rates[step // BATCHES]
            scale = scales[step] if scales else 1.0
            rows = slice(step % BATCHES * BATCH, (step % BATCHES + 1) * BATCH)
            gradients = self.gradients(x[rows], y[rows], scale)
            if all(np.isfinite(g).all() for g in gradients):
                reference.apply(gradients)
                self.model.set_weights(reference.variables)
            self.phi.append(reference.variables)
            self.theta.append([v.copy() for v in reference.theta])

    def gradients(self, x, y, scale):
        with tf.GradientTape() as tape:
            loss = self.model.compute_loss(
                x=x, y=y, y_pred=self.model(x, training=True)
            )
            loss = loss * scale
        gradients = tape.gradient(loss, self.model.trainable_variables)
        return [g.numpy() / scale for g in gradients]


@pytest.fixture(scope="module")
def expected(path):
    return Expected(path)


def assert_same(got, wanted):
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, RTOL, ATOL)


def differ(some, others):
    """Whether any array differs by far more than the tolerance above."""
    pairs = zip(some, others, strict=True)
    return any(np.max(np.abs(a - b)) > 20 * ATOL for a, b in pairs)


HOWS = {
    "auto": {},
    "jit": {"jit_compile": True},
    "graph": {"jit_compile": False},
    "eager": {"run_eagerly": True},
    "four steps": {"jit_compile": False, "steps_per_execution": 4},
}


@quiet
@pytest.mark.parametrize("how", HOWS)
def test_fit_follows_reference(path, expected, how):
    model = new_model(HierarchicalRNN(RATE, weights=path), **HOWS[how])
    recorder = Recorder()
    fit(model, [recorder])
    count = {"four steps": 4}.get(how, EPOCHS * BATCHES)
    assert len(recorder.batches) == count
    for step, got in recorder.batches.items():
        assert_same(got, expected.phi[step])
    assert differ(expected.phi[-1], expected.theta[-1])
    assert_same(model.get_weights(), expected.theta[-1])


@pytest.mark.parametrize("on_batch", [False, True])
def test_callbacks_after_swap_see_theta(path, expected, on_batch):
    model = new_model(HierarchicalRNN(RATE, weights=path))
    recorder = Recorder()
    fit(model, [AttentionSwap(swap_on_batch=on_batch), recorder])
    batches = expected.theta if on_batch else expected.phi
    for step, got in recorder.batches.items():
        assert_same(got, batches[step])
    assert_same(recorder.epochs[0], expected.theta[BATCHES - 1])
    assert_same(model.get_weights(), expected.theta[-1])


def test_second_fit_goes_on(path):
    model = new_model(HierarchicalRNN(RATE, weights=path))
    fit(model, [AttentionSwap()], epochs=1)
    fit(model, [AttentionSwap()], epochs=2)
    assert_same(model.get_weights(), Expected(path, epochs=3).theta[-1])


def test_reduce_on_plateau(path):
    model = new_model(HierarchicalRNN(RATE, weights=path))
    plateau = keras.callbacks.ReduceLROnPlateau(
        monitor="loss", factor=0.25, patience=1, min_delta=100.0
    )
    recorder = Recorder()
    fit(model, [AttentionSwap(), plateau, recorder], epochs=3)
    rates = [RATE, RATE, RATE / 4]
    assert recorder.rates == rates
    with_rates = Expected(path, rates=rates, epochs=3)
    assert_same(model.get_weights(), with_rates.theta[-1])
    assert differ(with_rates.theta[-1], Expected(path, epochs=3).theta[-1])


@pytest.fixture
def mixed_float16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


def test_mixed_precision_skips_overflow(path, mixed_float16):
    inner = HierarchicalRNN(RATE, weights=path)
    # float16 ends at 2^16, so the first steps overflow and halve the scale.
    scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**18)
    model = new_model(scaled, jit_compile=False)
    start = [w.copy() for w in model.get_weights()]
    recorder = Recorder()
    fit(model, [AttentionSwap(), recorder])
    overflows = EPOCHS * BATCHES - int(inner.iterations)
    assert 0 < overflows < BATCHES
    assert float(scaled.dynamic_scale) == 2.0 ** (18 - overflows)
    for got, wanted in zip(recorder.batches[0], start, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert inner.skipped_steps == 0
    assert inner.holds_theta
    scales = [2.0 ** -min(k, overflows) * 2.0**18 for k in range(12)]
    assert_same(model.get_weights(), Expected(path, scales=scales).theta[-1])


def test_mixed_precision_wraps_optimizer(path, mixed_float16):
    model = new_model(HierarchicalRNN(RATE, weights=path))
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, [AttentionSwap()], epochs=1)
    assert model.optimizer.inner_optimizer.holds_theta


def test_validation_sees_theta(path):
    model = new_model(HierarchicalRNN(RATE, weights=path))
    before, after = Recorder(), Recorder()
    fit(
        model,
        [before, AttentionSwap(), after],
        validation_data=data(),
        validation_batch_size=BATCH,
    )
    judge = new_model("sgd")
    for epoch in range(EPOCHS):
        judge.set_weights(after.epochs[epoch])
        at_theta = judge.evaluate(*data(), verbose=0)
        judge.set_weights(before.epochs[epoch])
        at_phi = judge.evaluate(*data(), verbose=0)
        assert abs(at_phi - at_theta) > 1e-3 * at_theta
        val_loss = after.logs[epoch]["val_loss"]
        np.testing.assert_allclose(val_loss, at_theta, 1e-5)


def trained(path, **arguments):
    """A model in the middle of training, with its phi and theta."""
    optimizer = HierarchicalRNN(RATE, weights=path, **arguments)
    optimizer.swapped_by_callback = True
    model = new_model(optimizer)
    for _ in range(3):
        model.train_on_batch(*data())
    phi = model.get_weights()
    slots = optimizer._slots
    offsets = [slots.offset(t).numpy() for t in range(len(phi))]
    theta = [v - o for v, o in zip(phi, offsets, strict=True)]
    return model, phi, theta


def assert_back(got, phi, theta):
    """phi again, but for one rounding on the way there and one back."""
    for a, b, c in zip(got, phi, theta, strict=True):
        ulp = np.spacing(np.maximum(np.abs(b), np.abs(c)))
        assert np.all(np.abs(a - b) <= ulp)


@pytest.mark.parametrize("what", ["evaluate", "predict"])
def test_theta_is_used_and_phi_comes_back(path, what):
    model, phi, theta = trained(path)
    judge = new_model("sgd")
    arguments = data() if what == "evaluate" else data()[:1]
    results = []
    for weights in (theta, phi):
        judge.set_weights(weights)
        results.append(getattr(judge, what)(*arguments, verbose=0))
    method = getattr(model, what)
    got = method(*arguments, verbose=0, callbacks=[AttentionSwap()])
    np.testing.assert_allclose(got, results[0], 1e-4, 1e-5)
    assert np.max(np.abs(got - results[1])) > 1e-3
    assert not model.optimizer.holds_theta
    assert_back(model.get_weights(), phi, theta)


def test_evaluate_after_fit_stays_at_theta(path):
    model = new_model(HierarchicalRNN(RATE, weights=path))
    fit(model, [AttentionSwap()])
    theta = model.get_weights()
    model.evaluate(*data(), verbose=0, callbacks=[AttentionSwap()])
    model.predict(data()[0], verbose=0, callbacks=[AttentionSwap()])
    for got, wanted in zip(model.get_weights(), theta, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert model.optimizer.holds_theta


def test_early_stopping_restores_theta(path):
    model = new_model(HierarchicalRNN(RATE, weights=path))
    # The noisy weights make the loss rise.
    stopping = keras.callbacks.EarlyStopping(
        "val_loss", mode="min", patience=0, restore_best_weights=True
    )
    recorder = Recorder()
    fit(
        model,
        [AttentionSwap(), stopping, recorder],
        epochs=4,
        validation_data=data(),
    )
    assert (stopping.best_epoch, stopping.stopped_epoch) == (0, 1)
    best = recorder.epochs[0]
    for got, wanted in zip(model.get_weights(), best, strict=True):
        np.testing.assert_array_equal(got, wanted)
    loss = model.evaluate(*data(), verbose=0)
    np.testing.assert_allclose(loss, recorder.logs[0]["val_loss"], 1e-5)
    assert model.optimizer.holds_theta


def test_missing_callback_warns_once(path):
    model = new_model(HierarchicalRNN(RATE, weights=path), run_eagerly=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, epochs=1)
        fit(model, epochs=1)
    assert sum("AttentionSwap" in str(w.message) for w in caught) == 1


def test_callback_silences_warning(path):
    model = new_model(HierarchicalRNN(RATE, weights=path), run_eagerly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, [AttentionSwap()], epochs=1)


def test_at_theta_swaps_both_ways_and_nests(path):
    model, phi, theta = trained(path)
    optimizer = model.optimizer
    assert not optimizer.holds_theta
    with optimizer.at_theta():
        assert optimizer.holds_theta
        assert_same(model.get_weights(), theta)
        outer = model.get_weights()
        with optimizer.at_theta():
            pass
        assert optimizer.holds_theta
        for got, wanted in zip(model.get_weights(), outer, strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert not optimizer.holds_theta
    assert_back(model.get_weights(), phi, theta)


def test_at_theta_swaps_back_after_an_error(path):
    model, phi, theta = trained(path)
    with pytest.raises(RuntimeError), model.optimizer.at_theta():
        raise RuntimeError
    assert not model.optimizer.holds_theta
    assert_back(model.get_weights(), phi, theta)


def test_swaps_tell_whether_they_did_anything(path):
    unbuilt = HierarchicalRNN(RATE, weights=path)
    assert not unbuilt.swap_to_theta()
    assert not unbuilt.swap_to_phi()
    optimizer = trained(path)[0].optimizer
    assert not optimizer.swap_to_phi()
    assert optimizer.swap_to_theta()
    assert not optimizer.swap_to_theta()
    assert optimizer.swap_to_phi()
    assert not optimizer.swap_to_phi()


@pytest.mark.parametrize("name", ["adam", "no attention"])
def test_swap_without_attention_does_nothing(tmp_path, name):
    def make():
        if name == "adam":
            return keras.optimizers.Adam(RATE)
        plain = weights_file(tmp_path, attention=False)
        return HierarchicalRNN(RATE, weights=plain)

    results = []
    for callbacks in ([], [AttentionSwap(swap_on_batch=True)]):
        model = new_model(make())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fit(model, callbacks, validation_data=data())
        model.predict(data()[0], verbose=0, callbacks=callbacks)
        results.append(model.get_weights())
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(chunks, "PIECE", 64)
    chunks._pack.cache_clear()
    yield
    chunks._pack.cache_clear()


LARGE = {
    "few chunks": [(5, 30), (3,), (), (20,)],
    "many chunks": [(5, 30), (), *[(3, 11), (40,)] * 5, (64,), (2, 64)],
}


@pytest.mark.parametrize("mode", ["eager", "graph", "jit"])
@pytest.mark.parametrize("model", LARGE)
def test_pieces_and_chunks(path, small_pieces, mode, model):
    shapes = LARGE[model]
    rng = np.random.default_rng(9)
    variables = [keras.Variable(rng.normal(size=s), dtype="float64")
                 for s in shapes]  # fmt: skip
    twins = Twins(path, mode=mode, variables=variables)
    plan = chunks.plan(tuple(v.numpy().size for v in variables), mode == "jit")
    assert (len(plan.chunks) > chunks.UNROLLED) == (model == "many chunks")
    assert plan.mapped == ((mode, model) == ("jit", "many chunks"))
    for step in range(3):
        twins.step([rng.normal(size=s) for s in shapes])
        if step == 1:
            assert twins.optimizer.swap_to_theta()
            twins.reference.to_theta()
            twins.check()
    twins.check()
    assert len(twins.optimizer._slots.states[0]) == 3
