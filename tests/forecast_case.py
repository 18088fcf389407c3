"""Memory that training uses, and its forecast; run by `test_estimate.py`.

`python -m tests.forecast_case hrnn` prints both, in bytes; with `adam`, only
the memory.
"""

import sys

import keras
import numpy as np

import hrnn_opt
from training.common.memory import Peak


def main(name: str):
    """Trains a small ConvNet for an epoch, with full and packed pieces."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((32, 32, 3))])
    for filters in (64, 128, 192, 256):
        model.add(layers.Conv2D(filters, 3, strides=2, padding="same"))
        model.add(layers.BatchNormalization())
        model.add(layers.ReLU())
    model.add(layers.Flatten())
    model.add(layers.Dense(10))
    optimizer = hrnn_opt.HierarchicalRNN() if name == "hrnn" else "adam"
    model.compile(optimizer, "mse")
    x, y = np.ones((48, 32, 32, 3), "float32"), np.ones((48, 10), "float32")
    with Peak() as peak:
        model.fit(x, y, batch_size=8, verbose=0)
    print(1e6 * peak.megabytes)
    if name == "hrnn":
        told = hrnn_opt.estimate(model, seconds=0.01)
        print(told.peak_bytes + told.held_bytes - told.adam_slot_bytes)


if __name__ == "__main__":
    main(sys.argv[1])
