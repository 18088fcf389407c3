"""Saved, loaded and continued training equals uninterrupted, bit for bit."""

import json
import pathlib
import warnings

import keras
import numpy as np
import pytest

from hrnn_opt import HierarchicalRNN, RuleConfig, persistence
from hrnn_opt.callbacks import AttentionSwap
from hrnn_opt.rule.config import WITHOUT_LENGTH
from tests.reference_pair import weights_file

RATE, BATCHES, BATCH = 2.0**-5, 6, 4

pytestmark = pytest.mark.filterwarnings("ignore:HierarchicalRNN trains at")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return weights_file(tmp_path_factory.mktemp("weights"))


def new_model(optimizer):
    """A model that always has the same initial weights."""
    model = keras.Sequential(
        [
            keras.layers.Input((3,)),
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.Dense(1),
        ]
    )
    rng = np.random.default_rng(8)
    model.set_weights([rng.normal(size=v.shape) for v in model.weights])
    model.compile(optimizer, loss="mse")
    return model


def fit(model, callbacks=(), epochs=1, **arguments):
    x = np.random.default_rng(7).normal(size=(BATCHES * BATCH, 3))
    model.fit(
        x,
        np.sin(x.sum(axis=1, keepdims=True)),
        batch_size=BATCH,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
        **arguments,
    )


def new(path, **arguments):
    return new_model(HierarchicalRNN(RATE, weights=path, **arguments))


def everything(model):
    """All variables of model and optimizer."""
    variables = [*model.variables, *model.optimizer.variables]
    return {v.path: v.numpy() for v in variables}


def assert_identical(some, others):
    assert len(some) == len(others)
    pairs = zip(some.items(), others.values(), strict=True)
    for (name, a), b in pairs:
        np.testing.assert_array_equal(a, b, err_msg=name)


def swaps(yes):
    return [AttentionSwap()] if yes else []


def reloaded(model, folder):
    """A second model with the saved state of the first."""
    file = folder / "model.keras"
    model.save(file)
    return keras.saving.load_model(file)


def test_averages_accumulators_and_decay_continue(path, tmp_path):
    model = new(
        path,
        weight_decay=0.5,
        clipnorm=0.5,
        use_ema=True,
        ema_momentum=0.75,
        gradient_accumulation_steps=4,  # of 6 batches: saved in between
    )
    fit(model)
    accumulators = model.optimizer._accumulated_gradients
    assert all(np.any(v.numpy()) for v in accumulators)
    other = reloaded(model, tmp_path)
    fit(model)
    fit(other)
    assert_identical(everything(model), everything(other))


def scaled(path):
    """The optimizer as `compile` wraps it for mixed precision."""
    inner = HierarchicalRNN(RATE, weights=path)
    return new_model(keras.optimizers.LossScaleOptimizer(inner))


def test_loss_scaled_optimizer_continues(path, tmp_path):
    model = scaled(path)
    fit(model, swaps(True))
    other = reloaded(model, tmp_path)
    assert_identical(everything(model), everything(other))
    fit(model, swaps(True))
    fit(other, swaps(True))
    assert_identical(everything(model), everything(other))


def test_loss_scaled_optimizer_needs_no_weights_file(tmp_path):
    path = weights_file(tmp_path)
    model = scaled(path)
    fit(model)
    file = tmp_path / "model.keras"
    model.save(file)
    path.unlink()
    other = keras.saving.load_model(file)
    fit(model)
    fit(other)
    assert_identical(everything(model), everything(other))


def test_loss_scaled_optimizer_refuses_other_version(
    path, tmp_path, monkeypatch
):
    model = scaled(path)
    fit(model)
    file = tmp_path / "saved.weights.h5"
    model.save_weights(file)
    other = scaled(path)
    other.optimizer.build(other.trainable_variables)
    monkeypatch.setattr(persistence, "RULE_VERSION", 77)
    # The model does change here: the wrapper first assigns all variables.
    with pytest.raises(ValueError, match="has another rule_version"):
        other.load_weights(file)


@pytest.mark.parametrize("swap", [False, True])
def test_checkpoint_of_an_epoch_continues(path, tmp_path, swap):
    file = tmp_path / "epoch{epoch}.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(file)
    model = new(path)
    fit(model, [*swaps(swap), checkpoint], epochs=3)
    other = keras.saving.load_model(str(file).format(epoch=2))
    # Only with the callback does a checkpoint hold theta, ready for use.
    assert other.optimizer.holds_theta == swap
    fit(other, swaps(swap), epochs=3, initial_epoch=2)
    assert_identical(everything(model), everything(other))


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == 8:  # in the second epoch
            raise InterruptedError


@pytest.mark.parametrize("swap", [False, True])
def test_backup_and_restore_continues(path, tmp_path, swap):
    uninterrupted = new(path)
    fit(uninterrupted, swaps(swap), epochs=3)

    def callbacks():
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        return [*swaps(swap), backup]

    with pytest.raises(InterruptedError):
        fit(new(path), [*callbacks(), Interrupt()], epochs=3)
    assert (tmp_path / "backup").is_dir()
    resumed = new(path)
    fit(resumed, callbacks(), epochs=3)
    assert_identical(everything(uninterrupted), everything(resumed))


def test_backup_in_the_middle_of_an_epoch_continues_at_theta(path, tmp_path):
    file = tmp_path / "step{batch}.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(file, save_freq=4)
    model = new(path)
    fit(model, [AttentionSwap(swap_on_batch=True), checkpoint], epochs=1)
    other = keras.saving.load_model(str(file).format(batch=4))
    assert other.optimizer.holds_theta
    assert int(other.optimizer.iterations) == 4


@keras.saving.register_keras_serializable(package="tests")
class Falling(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.5 / (1.0 + keras.ops.cast(step, "float32"))

    def get_config(self):
        return {}


ARGUMENTS = {
    "weight_decay": 0.5,
    "global_clipnorm": 2.0,
    "use_ema": True,
    "ema_momentum": 0.75,
    "ema_overwrite_frequency": 3,
    "loss_scale_factor": 4.0,
    "gradient_accumulation_steps": 2,
    "state_dtype": "bfloat16",
    "name": "mine",
}


def test_config_round_trip(path):
    optimizer = HierarchicalRNN(RATE, weights=path, **ARGUMENTS)
    config = optimizer.get_config()
    assert config.items() >= ARGUMENTS.items()
    assert config["learning_rate"] == RATE
    assert json.loads(json.dumps(config)) == config
    again = HierarchicalRNN.from_config(config)
    assert again.get_config() == config
    np.testing.assert_array_equal(
        again._initial_vector, optimizer._initial_vector
    )


def test_config_of_fresh_meta_parameters(path):
    config = RuleConfig(param_units=5, attention=False)
    optimizer = HierarchicalRNN(weights=None, config=config, seed=3)
    again = HierarchicalRNN.from_config(optimizer.get_config())
    assert again.config == config
    assert again.seed == 3
    np.testing.assert_array_equal(
        again._initial_vector, optimizer._initial_vector
    )


def test_serialize_and_deserialize(path):
    optimizer = HierarchicalRNN(Falling(), weights=path, **ARGUMENTS)
    serialized = keras.optimizers.serialize(optimizer)
    serialized = json.loads(json.dumps(serialized))
    again = keras.optimizers.deserialize(serialized)
    assert isinstance(again, HierarchicalRNN)
    assert again.get_config() == optimizer.get_config()
    assert float(again._learning_rate(3)) == 0.125


def test_weights_path_object_is_serialized_as_text(path):
    optimizer = HierarchicalRNN(weights=pathlib.Path(path))
    assert optimizer.get_config()["weights"] == str(path)


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_saved_model_needs_no_weights_file(tmp_path, change):
    path = weights_file(tmp_path)
    model = new(path)
    fit(model)
    file = tmp_path / "model.keras"
    model.save(file)
    config = model.optimizer.get_config()
    path.unlink()
    if change == "replaced":
        weights_file(tmp_path, seed=6).rename(path)
    other = keras.saving.load_model(file)
    assert other.optimizer.get_config() == config
    fit(model)
    fit(other)
    assert_identical(everything(model), everything(other))
    # A second generation, saved from the loaded one.
    other.save(file)
    third = keras.saving.load_model(file)
    assert_identical(everything(third), everything(other))


@pytest.mark.parametrize(
    "change, error, text",
    [
        ("deleted", FileNotFoundError, "noisy0.npz"),
        ("replaced", ValueError, "no longer names the file.*expected sha256"),
    ],
)
def test_config_alone_needs_the_weights_file(tmp_path, change, error, text):
    path = weights_file(tmp_path)
    config = HierarchicalRNN(RATE, weights=path).get_config()
    path.unlink()
    if change == "replaced":
        weights_file(tmp_path, seed=6).rename(path)
    optimizer = HierarchicalRNN.from_config(config)
    variable = keras.Variable(np.ones(3, "float32"))
    with pytest.raises(error, match=text):
        optimizer.apply_gradients([(np.ones(3, "float32"), variable)])
    np.testing.assert_array_equal(variable.numpy(), 1)


def saved_and_other(path, tmp_path):
    """A saved file, and another model to load it into."""
    model = new(path)
    fit(model)
    file = tmp_path / "saved.weights.h5"
    model.save_weights(file)
    other = new(path)
    other.optimizer.build(other.trainable_variables)
    return file, other


@pytest.mark.parametrize("version", ["state_version", "rule_version"])
def test_other_version_is_refused(path, tmp_path, monkeypatch, version):
    file, other = saved_and_other(path, tmp_path)
    before = {v.path: v.numpy() for v in other.optimizer.variables}
    saved = getattr(persistence, version.upper())
    monkeypatch.setattr(persistence, version.upper(), 77)
    text = f"has another {version}: expected 77. Received: {saved}"
    with pytest.raises(ValueError, match=text):
        other.load_weights(file)
    after = {v.path: v.numpy() for v in other.optimizer.variables}
    assert_identical(before, after)


def test_other_config_is_refused(path, tmp_path):
    file, _ = saved_and_other(path, tmp_path)
    plain = weights_file(tmp_path, **WITHOUT_LENGTH)
    other = new(plain)
    other.optimizer.build(other.trainable_variables)
    before = everything(other)
    with pytest.raises(ValueError, match="another config: .*'timescales': 4"):
        other.load_weights(file)
    for variable in other.optimizer.variables:
        np.testing.assert_array_equal(variable.numpy(), before[variable.path])


def test_negligible_gradients_continue(tmp_path):
    """The largest gradients are restored; another share is another config."""
    with_share = weights_file(tmp_path, 1, negligible=0.05)
    file, other = saved_and_other(with_share, tmp_path)
    other.load_weights(file)
    largest = other.optimizer._slots.tensors.numpy()[0]
    assert np.all(largest > 0)
    plain = new(weights_file(tmp_path, 2))
    plain.optimizer.build(plain.trainable_variables)
    with pytest.raises(ValueError, match="another config"):
        plain.load_weights(file)


def test_other_shapes_are_refused(path, tmp_path):
    optimizer = HierarchicalRNN(RATE, weights=path)
    optimizer.build([keras.Variable(np.ones((2, 3)))])
    store = {}
    optimizer.save_own_variables(store)
    other = HierarchicalRNN(RATE, weights=path)
    other.build([keras.Variable(np.ones((2, 4)))])
    before = [v.numpy() for v in other.variables]
    text = r"does not fit this model: expected shape \(19, 8\) for .*state_0_0"
    with pytest.raises(ValueError, match=text + r".*Received: \(19, 6\)"):
        other.load_own_variables(store)
    for variable, value in zip(other.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_state_of_adam_is_skipped(path, tmp_path):
    file = tmp_path / "adam.weights.h5"
    adam = new_model(keras.optimizers.Adam())
    fit(adam)
    adam.save_weights(file)
    model = new(path)
    model.optimizer.build(model.trainable_variables)
    before = [v.numpy() for v in model.optimizer.variables]
    with pytest.warns(UserWarning, match="of a different optimizer"):
        model.load_weights(file)
    for got, wanted in zip(model.get_weights(), adam.get_weights(),
                           strict=True):  # fmt: skip
        np.testing.assert_array_equal(got, wanted)
    for variable, value in zip(model.optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_state_is_skipped_before_build(path, tmp_path):
    file, _ = saved_and_other(path, tmp_path)
    model = new(path)
    with pytest.warns(UserWarning, match="Is the optimizer built"):
        model.load_weights(file)
    assert not model.optimizer.built


def test_adam_skips_our_state(path, tmp_path):
    file, _ = saved_and_other(path, tmp_path)
    adam = new_model(keras.optimizers.Adam())
    adam.optimizer.build(adam.trainable_variables)
    with pytest.warns(UserWarning, match="Skipping variable loading"):
        adam.load_weights(file)


def test_loading_says_nothing_where_all_is_well(path, tmp_path):
    file, other = saved_and_other(path, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        other.load_weights(file)
        reloaded(other, tmp_path)
