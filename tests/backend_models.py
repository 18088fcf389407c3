"""`fit` and saved models, on the backend that runs.

See `tests/backend_cases.py`. `python -m tests.backend_models FOLDER` writes
`FOLDER/<backend>.npz`, with the cases of both files, and `<backend>.keras`;
with `--load` it continues the models that all backends have saved there.
FOLDER holds the optimizer's weights, as `weights_file` names them.
"""

import pathlib
import sys
import warnings

import keras
import numpy as np

from hrnn_opt import HierarchicalRNN
from hrnn_opt.callbacks import AttentionSwap
from tests import backend_cases
from tests.backend_cases import BACKEND, numpy

RNG = np.random.default_rng(5)
X = RNG.integers(0, 9, (16, 3))
Y = RNG.normal(size=(16, 2)).astype("float32")
BATCH, EPOCHS = 4, 6


def new_model(weights, loss_scaled=False, **arguments):
    """An embedding and two layers, always with the same initial weights."""
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            keras.layers.Embedding(9, 2),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="tanh"),
            keras.layers.Dense(2, kernel_constraint="non_neg"),
        ]
    )
    rng = np.random.default_rng(6)
    model.set_weights(
        [rng.uniform(0.1, 1, size=v.shape) for v in model.weights]
    )
    optimizer = HierarchicalRNN(
        2.0**-6,
        weights,
        seed=0 if weights is None else None,
        weight_decay=0.5,
        **arguments,
    )
    if loss_scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(
            optimizer, initial_scale=2.0**8
        )
    model.compile(optimizer, loss="mse")
    return model


def fit(model, first, last, callbacks=None, x=X, y=Y):
    """Epochs [first, last) of 4 steps, with validation after each."""
    return model.fit(
        x,
        y,
        BATCH,
        initial_epoch=first,
        epochs=last,
        shuffle=False,
        verbose=0,
        validation_data=(X, Y),
        callbacks=[AttentionSwap()] if callbacks is None else callbacks,
    ).history


def values(model):
    """The model's variables, as {name: array}."""
    return {f"v{k}": numpy(v) for k, v in enumerate(model.variables)}


def everything(model):
    """The variables of model and optimizer."""
    own = {f"o{k}": numpy(v) for k, v in enumerate(model.optimizer.variables)}
    return values(model) | own


def interrupted(weights, folder):
    """`fit`, saved in the middle and continued; and without interruption."""
    whole, half = new_model(weights), new_model(weights)
    history = fit(whole, 0, EPOCHS)
    fit(half, 0, EPOCHS // 2)
    half.save(folder / f"{BACKEND}.keras")
    again = keras.saving.load_model(folder / f"{BACKEND}.keras")
    fit(again, EPOCHS // 2, EPOCHS)
    return {
        "fit": everything(whole)
        | {
            "start": 0 * np.asarray(history["loss"]),
            "loss": history["loss"],
            "val_loss": history["val_loss"],
            "evaluated": whole.evaluate(X, Y, BATCH, verbose=0),
            "predicted": whole.predict(X, verbose=0),
        },
        "again": everything(again),
    }


def amid_training(weights):
    """Evaluation between the steps of a custom loop: at theta, then at phi."""
    model = new_model(weights)
    for k in range(3):
        rows = slice(k * BATCH, (k + 1) * BATCH)
        model.train_on_batch(X[rows], Y[rows])
    phi = values(model)
    with model.optimizer.at_theta():
        theta = values(model)
    loss = model.evaluate(X, Y, verbose=0, callbacks=[AttentionSwap()])
    predicted = model.predict(X, verbose=0, callbacks=[AttentionSwap()])
    back = values(model)
    return {
        "theta": theta,
        "phi": phi,
        "back": back,
        "outputs": {"loss": loss, "predicted": predicted},
        "holds": {"theta": model.optimizer.holds_theta},
    }


class Flags(keras.callbacks.Callback):
    """Records after each batch whether the variables hold theta."""

    def on_train_begin(self, logs=None):
        self.flags = []

    def on_train_batch_end(self, batch, logs=None):
        self.flags.append(self.model.optimizer.holds_theta)


def swapped_on_batch(weights, folder):
    """Holds theta in the variables after each batch, for checkpoints there."""
    model, flags = new_model(weights), Flags()
    file = folder / f"{BACKEND}_batch.keras"
    save = keras.callbacks.ModelCheckpoint(file, save_freq=3)
    fit(model, 0, 1, [AttentionSwap(swap_on_batch=True), flags, save])
    return values(model) | {
        "flags": flags.flags,
        "saved": keras.saving.load_model(file).optimizer.holds_theta,
    }


def bad_batch(weights):
    """A NaN in one batch: one skipped step and one warning."""
    model, y = new_model(weights), Y.copy()
    y[5, 1] = np.nan
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, 0, 1, y=y)
    told = [w for w in caught if "skipped 1 step" in str(w.message)]
    return values(model) | {
        "skipped": model.optimizer.skipped_steps,
        "told": len(told),
    }


def mixed_precision(folder):
    """float16 with a scaled loss: learns, and continues from a file."""
    keras.config.set_dtype_policy("mixed_float16")
    # Initial meta-parameters, which descend at any learning rate.
    model = new_model(None, loss_scaled=True)
    losses = fit(model, 0, 4)["loss"]
    model.save(folder / f"{BACKEND}_mixed.keras")
    again = keras.saving.load_model(folder / f"{BACKEND}_mixed.keras")
    for both in (model, again):
        fit(both, 4, 5)
    keras.config.set_dtype_policy("float32")
    return {
        "mixed losses": {"losses": losses},
        "mixed": everything(model),
        "mixed again": everything(again),
    }


def stateless_loop(weights):
    """JAX's own training loop: a jitted step, with state outside variables."""
    import jax

    model = new_model(weights)
    optimizer, traces = model.optimizer, []

    def loss(trainable, other, x, y):
        output, other = model.stateless_call(trainable, other, x)
        return jax.numpy.mean((output - y) ** 2), other

    @jax.jit
    def step(state, x, y):
        traces.append(1)
        trainable, other, own = state
        (value, other), grads = jax.value_and_grad(loss, has_aux=True)(
            trainable, other, x, y
        )
        trainable, own = optimizer.stateless_apply(own, grads, trainable)
        return value, (trainable, other, own)

    optimizer.build(model.trainable_variables)
    variables = (
        model.trainable_variables,
        model.non_trainable_variables,
        optimizer.variables,
    )
    state = tuple([v.value for v in part] for part in variables)
    losses = []
    for k in range(EPOCHS * 4):
        rows = slice(k % 4 * BATCH, (k % 4 + 1) * BATCH)
        value, state = step(state, X[rows], Y[rows])
        losses.append(float(value))
    _, state = step(state, X[:BATCH], np.nan * Y[:BATCH])
    for part, new in zip(variables, state, strict=True):
        for variable, value in zip(part, new, strict=True):
            variable.assign(value)
    skipped = optimizer.skipped_steps
    with optimizer.at_theta():
        arrays = values(model)
    return arrays | {
        "losses": losses,
        "skipped": skipped,
        "traces": len(traces),
    }


def interrupted_in_bfloat16(weights, folder):
    """The same with a state in bfloat16."""
    arguments = {"state_dtype": "bfloat16"}
    whole = new_model(weights, **arguments)
    half = new_model(weights, **arguments)
    fit(whole, 0, EPOCHS)
    fit(half, 0, EPOCHS // 2)
    file = folder / f"{BACKEND}_bfloat16.keras"
    half.save(file)
    again = keras.saving.load_model(file)
    types = {v.dtype for v in again.optimizer._slots.states[0]}
    fit(again, EPOCHS // 2, EPOCHS)
    return {
        "fit in bfloat16": in_float32(everything(whole)),
        "again in bfloat16": in_float32(everything(again)),
        "types": {"rounded": types == {"bfloat16"}},
    }


def in_float32(arrays):
    """Converts bfloat16 arrays to float32, since NumPy cannot save them."""
    return {name: np.asarray(x, "float32") for name, x in arrays.items()}


def run(folder):
    """All cases of both files, as {case: {name: array}}."""
    weights = folder / f"noisy{backend_cases.SEED}.npz"
    results = interrupted(weights, folder)
    results |= interrupted_in_bfloat16(weights, folder)
    results["on batch"] = swapped_on_batch(weights, folder)
    for case, arrays in amid_training(weights).items():
        results[f"amid {case}"] = arrays
    results["bad batch"] = bad_batch(weights)
    results |= mixed_precision(folder)
    if BACKEND == "jax":
        results["stateless loop"] = stateless_loop(weights)
    return results | backend_cases.run(weights)


def load(folder):
    """Continues the models saved by every backend."""
    results = {}
    for backend in ("tensorflow", "jax", "torch"):
        file = folder / f"{backend}.keras"
        if file.exists():
            model = keras.saving.load_model(file)
            fit(model, EPOCHS // 2, EPOCHS)
            results[f"from {backend}"] = everything(model)
            file = folder / f"{backend}_bfloat16.keras"
            model = keras.saving.load_model(file)
            if BACKEND != "jax":
                # JAX's model asks to be compiled as a whole: once is enough.
                model.jit_compile = False
            fit(model, EPOCHS // 2, EPOCHS)
            results[f"bfloat16 from {backend}"] = in_float32(everything(model))
    return results


def write(path, results):
    """Writes {case: {name: array}} to one file."""
    np.savez(
        path,
        **{
            f"{case}/{name}": array
            for case, arrays in results.items()
            for name, array in arrays.items()
        },
    )


def main(folder, load_others):
    """Writes the results of this backend."""
    if load_others:
        write(folder / f"{BACKEND}_loads.npz", load(folder))
    else:
        write(folder / f"{BACKEND}.npz", run(folder))


if __name__ == "__main__":
    if BACKEND != "tensorflow":
        # The other backends must work without TensorFlow.
        sys.modules["tensorflow"] = None
    main(pathlib.Path(sys.argv[1]), "--load" in sys.argv)
