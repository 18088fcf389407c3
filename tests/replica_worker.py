"""A program that trains a small model, alone or as one of several workers.

It is a worker if `TF_CONFIG` says so. Its final state is written to a file.

Started by `test_replicas.py`.
"""

import os
import sys
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from hrnn_opt import HierarchicalRNN
from hrnn_opt.model import guard
from training import replicas

FEATURES, OUTPUTS, BATCH, STEPS = 5, 2, 8, 6


def data():
    """Features and labels of all examples."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * STEPS, FEATURES))
    y = rng.normal(size=(BATCH * STEPS, OUTPUTS))
    return x.astype("float32"), y.astype("float32")


def examples(bad=None):
    """Single examples; one may have features that are infinite."""
    x, y = data()
    if bad is not None:
        x[bad] = np.inf
    return tf.data.Dataset.from_tensor_slices((x, y))


def new_loop(strategy, weights, policy="float32", **kwargs):
    """Makes everything in the strategy's scope, from the same seed."""
    with strategy.scope():
        keras.utils.set_random_seed(1)
        dense = keras.layers.Dense
        model = keras.Sequential(
            [
                keras.layers.Input((FEATURES,)),
                dense(7, "tanh", kernel_regularizer="l2", dtype=policy),
                dense(OUTPUTS, dtype=policy),
            ]
        )
        optimizer = HierarchicalRNN(1e-2, weights=weights, **kwargs)
        optimizer.swapped_by_callback = True
        if policy != "float32":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, 64.0)
        metrics = [keras.metrics.MeanAbsoluteError(name="mae")]
    loss = keras.losses.mean_squared_error
    return replicas.Loop(strategy, model, optimizer, loss, metrics)


def ending(loop, logs):
    """The final state of a run, as arrays."""
    variables = [*loop.model.variables, *loop.optimizer.variables]
    arrays = [v.numpy() for v in variables]
    return [*arrays, *(logs[key] for key in sorted(logs))]


def train(strategy, weights, bad=None, **kwargs):
    """A run over the examples, evaluated on some of them at the end."""
    loop = new_loop(strategy, weights, **kwargs)
    batches = replicas.distribute(strategy, examples(bad), BATCH)
    logs = loop.train(iter(batches), STEPS)
    some = examples().take(BATCH * 2 + 3)
    some = replicas.distribute(strategy, some, BATCH, drop_remainder=False)
    tests = loop.evaluate(some)
    logs.update((f"test {key}", value) for key, value in tests.items())
    return ending(loop, logs)


def train_guarded(strategy, weights):
    """A run whose watched loss is NaN once, and the following steps."""
    loop = new_loop(strategy, weights, guard=True)
    # As many as it needs: an endless one is read ahead while it is closed.
    data = examples().repeat(3)
    batches = iter(replicas.distribute(strategy, data, BATCH))
    with mock.patch.object(guard, "INTERVAL", 4):
        for watched in (1.0, 1.0, float("nan"), 1.0):
            logs = loop.train(batches, 4)
            loop.optimizer.watch(watched, 4)
    return ending(loop, logs | {"rollbacks": loop.optimizer.rollbacks})


def run(strategy, weights) -> dict[str, list]:
    """All cases, by name."""
    # An odd number, so that the second replica sees it.
    bad = 2 * BATCH + 1
    options = {"weight_decay": 0.1, "use_ema": True, "global_clipnorm": 0.01}
    return {
        "options": train(strategy, weights, bad, **options),
        "guarded": train_guarded(strategy, weights),
        "mixed": train(strategy, weights, bad, policy="mixed_bfloat16"),
    }


def check(one: dict[str, list], several: dict[str, list]):
    """Checks that runs on one device and on several replicas end alike."""
    assert one.keys() == several.keys()
    for case, arrays in one.items():
        # A gradient of a bfloat16 model has 8 bits.
        tolerance = 0.05 if case == "mixed" else 1e-5
        for k, (a, b) in enumerate(zip(arrays, several[case], strict=True)):
            np.testing.assert_allclose(
                b, a, tolerance, tolerance, err_msg=f"{case} {k}"
            )


def save(path, results: dict[str, list]):
    """Writes the arrays of all cases to one file."""
    np.savez(
        path,
        **{
            f"{case} {k:03}": array
            for case, arrays in results.items()
            for k, array in enumerate(arrays)
        },
    )


def load(path) -> dict[str, list]:
    """The inverse of `save`."""
    results = {}
    with np.load(path) as file:
        for name in sorted(file.files):
            results.setdefault(name.split()[0], []).append(file[name])
    return results


if __name__ == "__main__":
    # On processors with units for bfloat16, oneDNN rounds products of batches
    # of other sizes in other places. TensorFlow reads this when it is imported.
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0":
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
        command = [sys.executable, "-m", "tests.replica_worker", *sys.argv[1:]]
        os.execv(sys.executable, command)
    out, weights = sys.argv[1:]
    strategy = replicas.make_strategy()
    print(type(strategy).__name__, strategy.num_replicas_in_sync, flush=True)
    results = run(strategy, weights)
    if replicas.is_chief(strategy):
        save(out, results)
