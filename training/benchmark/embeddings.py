"""Cost of a step of an embedding of which a minibatch uses a few rows."""

import time

import numpy as np

ROWS, WIDTH, INDICES = 200_000, 16, 256


def run(seconds: float) -> dict:
    """Prints milliseconds per step beside Keras's Adam; returns the figures.

    Args:
        seconds: measuring time for each optimizer.
    """
    import keras

    from hrnn_opt import HierarchicalRNN

    times = {
        "hrnn": _milliseconds(HierarchicalRNN(), seconds),
        "adam": _milliseconds(keras.optimizers.Adam(), seconds),
    }
    ratio = times["hrnn"] / times["adam"]
    print(
        f"embedding of {ROWS:,} x {WIDTH}, {INDICES} indices a step: "
        f"{times['hrnn']:.2f} ms, Adam {times['adam']:.2f} ms, "
        f"ratio {ratio:.2f}"
    )
    return times | {"ratio": ratio}


def _milliseconds(optimizer, seconds: float) -> float:
    """Median time of a step, with newly drawn rows in each."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    table = tf.Variable(tf.zeros([ROWS, WIDTH]), name="embeddings")
    optimizer.build([table])
    shape = tf.constant([ROWS, WIDTH])

    @tf.function(autograph=False)
    def step(rows, ids):
        optimizer.apply([tf.IndexedSlices(rows, ids, shape)])

    rows = tf.constant(rng.normal(size=(INDICES, WIDTH)), "float32")
    times, end = [], None
    while end is None or time.perf_counter() < end or len(times) < 3:
        ids = tf.constant(rng.integers(ROWS, size=INDICES), "int32")
        start = time.perf_counter()
        step(rows, ids)
        tf.test.experimental.sync_devices()
        if end is None:  # the first step compiles
            end = time.perf_counter() + seconds
        else:
            times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))
