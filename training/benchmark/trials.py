"""What a tuner's trials cost: first steps, and what stays in memory.

Every trial is a new model with layers of a new width and a new optimizer, and
makes two steps. Each optimizer's trials are a process of their own.
"""

import gc
import json
import os
import subprocess
import sys
import time

import numpy as np
from tqdm import tqdm

from training.common.tables import table

WARM_UP = 3
"""Trials before memory is read: what TensorFlow keeps once."""

KINDS = ("MLP", "ConvNet")


def run(trials: int, only: str | None) -> dict:
    """Prints the table; returns the figures.

    Args:
        trials: number of models of each kind.
        only: only the kind with this in its name; None is both.
    """
    kinds = [kind for kind in KINDS if not only or only in kind]
    if not kinds:
        raise ValueError(
            f"Flag --only must be part of one of {KINDS}. Received: {only!r}"
        )
    figures, rows = {}, []
    pairs = [(kind, name) for kind in kinds for name in ("hrnn", "adam")]
    for kind, name in tqdm(pairs, unit="process"):
        done = subprocess.run(
            [sys.executable, "-m", __name__, kind, name, str(trials)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        own = json.loads(done.stdout.splitlines()[-1])
        figures |= {f"{kind} {name} {key}": own[key] for key in own}
        rows.append([kind, name, *(f"{value:.2f}" for value in own.values())])
    print(
        table(
            ["model", "optimizer", "first step s", "of a new width s",
             "MB a trial"],
            rows,
        )
    )  # fmt: skip
    return figures


def _model(kind: str, width: int):
    import keras

    layers = keras.layers
    if kind == "MLP":
        own = [keras.Input((16,)), layers.Dense(width, "relu")]
    else:
        own = [
            keras.Input((16, 16, 3)),
            layers.Conv2D(width, 3, activation="relu"),
            layers.Flatten(),
        ]
    own += [layers.Dense(width, "relu"), layers.Dense(10)]
    return keras.Sequential(own)


def _trials(kind: str, name: str, trials: int) -> dict:
    """Seconds of the first trial's first step, the others' median, memory."""
    import keras

    from hrnn_opt import HierarchicalRNN

    seconds, start = [], 0.0
    for trial in range(trials):
        model = _model(kind, 8 + trial)
        optimizer = (
            HierarchicalRNN() if name == "hrnn" else keras.optimizers.Adam()
        )
        model.compile(optimizer, "mse")
        x = np.ones((8, *model.input_shape[1:]), "float32")
        y = np.ones((8, 10), "float32")
        begun = time.perf_counter()
        model.train_on_batch(x, y)
        seconds.append(time.perf_counter() - begun)
        model.train_on_batch(x, y)
        del model, optimizer
        keras.backend.clear_session()
        gc.collect()
        if trial == WARM_UP - 1:
            start = _resident()
    return {
        "first_step_s": seconds[0],
        "further_first_step_s": float(np.median(seconds[WARM_UP:])),
        "mb_a_trial": (_resident() - start) / (trials - WARM_UP) / 1e6,
    }


def _resident() -> float:
    """Bytes of memory that this process holds now; 0 but on Linux."""
    if not os.path.exists("/proc/self/statm"):
        return 0.0
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


if __name__ == "__main__":
    print(json.dumps(_trials(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
