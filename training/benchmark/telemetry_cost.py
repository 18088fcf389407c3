"""The cost of `Telemetry`, against the same training without it."""

import statistics
import tempfile
import time

import keras
import numpy as np

import hrnn_opt
from hrnn_opt.callbacks import AttentionSwap, Telemetry
from training.benchmark.estimates import small_mlp
from training.common.tables import table

LIMIT = 0.02  # largest accepted share of a step's time
BATCH = 64


def small_convnet() -> keras.Model:
    """A ConvNet on 8x8 pictures: a fast step, many tensors for its size."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *(
                layer
                for filters in (16, 32, 32)
                for layer in (
                    layers.Conv2D(filters, 3, padding="same", use_bias=False),
                    layers.BatchNormalization(),
                    layers.ReLU(),
                )
            ),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ],
        name="small_convnet",
    )


class _Clock(keras.callbacks.Callback):
    """The time of every step, including the callbacks before this one."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_epoch_begin(self, epoch, logs=None):
        self._last = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        self.times.append(now - self._last)
        self._last = now


def ratio(model, every: int, readings: int) -> tuple[float, float, float]:
    """Milliseconds of a step, of a reading, and its share of the steps.

    Steps with and without a reading alternate within one training run, so that
    noise of the machine affects both alike. A reading's cost is the difference
    of the two medians; it is due once in `every` steps.
    """
    model.compile(
        hrnn_opt.HierarchicalRNN(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    rng = np.random.default_rng(0)
    count = 2 * readings * BATCH
    x = rng.normal(size=(count, *model.input_shape[1:])).astype("float32")
    y = rng.integers(10, size=count)
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        reading = Telemetry(folder, every=2)
        model.fit(
            x, y, BATCH, verbose=0,
            callbacks=[AttentionSwap(), reading, clock],
        )  # fmt: skip
    # The first steps compile.
    times = np.asarray(clock.times[4:])
    without, with_ = times[0::2], times[1::2]
    step = statistics.median(without)
    cost = statistics.median(with_[: len(without)] - without[: len(with_)])
    return 1e3 * step, 1e3 * cost, cost / (every * step)


MODELS = (small_convnet, small_mlp, keras.applications.MobileNetV2)


def run(seconds: float, only: str | None = None) -> dict:
    """Prints the table; returns the figures.

    Args:
        seconds: approximate measuring time for each small model.
        only: part of the names of the models to measure; None takes all.

    Raises:
        ValueError: no model's name has that part.
    """
    every = Telemetry("unused").every
    rows, result = [], {"every": every, "limit": LIMIT}
    chosen = [make for make in MODELS if not only or only in make.__name__]
    if not chosen:
        raise ValueError(
            "Flag --only must be part of a model's name: "
            f"{[make.__name__ for make in MODELS]}. Received: {only!r}"
        )
    for make in chosen:
        if make is keras.applications.MobileNetV2:
            model = make(weights=None, input_shape=(32, 32, 3), classes=10)
            readings = 5
        else:
            model, readings = make(), 25 * max(1, round(seconds))
        step, cost, share = ratio(model, every, readings)
        rows.append(
            [model.name, f"{step:.2f}", f"{cost:.2f}", f"{100 * share:.3f} %",
             "yes" if share <= LIMIT else "NO"]
        )  # fmt: skip
        result[model.name] = {
            "step_ms": round(step, 3),
            "reading_ms": round(cost, 3),
            "share": round(share, 5),
        }
    print(f"\nTelemetry every {every} steps, batches of {BATCH}")
    print(table(["model", "step ms", "reading ms", "share", "holds"], rows))
    return result
