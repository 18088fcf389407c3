"""Figure 7: time of a gradient and an update against the minibatch's size."""

import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from training.common import output, palette
from training.common.results import Results
from training.common.tables import table
from training.evaluation import candidates
from training.figures.comparison import OWN
from training.figures.figure_8a import optimizers
from training.figures.settings import Settings
from training.figures.tasks import convnet

BATCHES = (1, 4, 16, 64, 256, 1024)
SHAPE = (28, 28, 1)
REPEATS = 100


def _step(optimizer, batch: int):
    """A function that takes one step on random pictures."""
    random = np.random.default_rng(0)
    x = tf.constant(random.uniform(size=(batch, *SHAPE)), tf.float32)
    y = tf.constant(random.integers(0, 10, batch), tf.int32)
    model = convnet(SHAPE, 0, filters=(32, 64))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = model.trainable_variables
    optimizer.build(variables)
    # Nothing is evaluated, so the missing swap needs no warning.
    optimizer.swapped_by_callback = True

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        optimizer.apply(tape.gradient(value, variables), variables)
        return value

    return lambda: step().numpy()


def measure(makers: dict, batch: int, repeats: int) -> list[float]:
    """Median seconds of a step of each optimizer, measured in turn."""
    steps = [_step(make(), batch) for make in makers.values()]
    times = [[] for _ in steps]
    for step in steps:
        step()
    for _ in range(repeats):
        for step, kept in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            kept.append(time.perf_counter() - start)
    return [statistics.median(kept) for kept in times]


def run(settings: Settings, results: Results) -> dict:
    """Draws the figure; returns times in milliseconds."""
    repeats = settings.steps_or(REPEATS)
    rule, vector = candidates.load(settings.weights)
    makers = optimizers(lambda: candidates.optimizer(rule, vector))
    names = [name.split()[0] for name in makers]
    seconds = np.array(
        [
            results.get(
                f"figure 7; {candidates.digest(rule, vector)}; batch {batch}; "
                f"{repeats} repeats",
                lambda batch=batch: measure(makers, batch, repeats),
            )
            for batch in tqdm(BATCHES, unit="size")
        ]
    ).T
    figure, (axes,) = output.page(1, width=5.0, height=3.4)
    for k, (name, values) in enumerate(zip(names, seconds, strict=True)):
        axes.plot(BATCHES, values, marker="o", ms=3, label=name,
                  **palette.style(k))  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(BATCHES, [str(b) for b in BATCHES])
    axes.set_xlabel("pictures in a minibatch")
    axes.set_ylabel("seconds a step")
    axes.set_title("Gradient and update, 2-layer ConvNet (CPU)", fontsize=10)
    axes.grid(True, alpha=0.2)
    axes.legend(frameon=False)
    output.save(figure, settings.out / "figure_7.png")
    output.write_csv(
        settings.out / "figure_7.csv",
        ["optimizer", "batch", "seconds"],
        (
            [name, batch, float(value)]
            for name, values in zip(names, seconds, strict=True)
            for batch, value in zip(BATCHES, values, strict=True)
        ),
    )
    ratios = [float(own / adam) for own, adam in zip(*seconds[:2], strict=True)]
    rows = [
        [batch, *(f"{1e3 * s:.2f}" for s in seconds[:, k]), f"{ratios[k]:.2f}"]
        for k, batch in enumerate(BATCHES)
    ]
    print("\nMilliseconds of a gradient and update\n")
    print(table(["batch", *names, f"{OWN} / Adam"], rows))
    return {
        "batches": list(BATCHES),
        "milliseconds": {
            name: [float(1e3 * s) for s in values]
            for name, values in zip(names, seconds, strict=True)
        },
        "ratio_to_adam": ratios,
    }
