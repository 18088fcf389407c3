"""`python -m training.quickstart --out=DIR`: a first look, in a few minutes.

Trains a small ConvNet on scikit-learn's handwritten digits with
HierarchicalRNN, Adam and RMSProp, each over several seeds, through
`model.compile` and `fit`. Writes `quickstart.png` and `quickstart.csv`.
"""

import csv
import pathlib
import statistics
import time
from typing import NamedTuple

import keras
import matplotlib
import numpy as np
from absl import app, flags
from tqdm import tqdm

import problems.data
import problems.neural
from hrnn_opt import HierarchicalRNN
from hrnn_opt.callbacks import AttentionSwap
from training.common import palette
from training.common.tables import table

OUT = flags.DEFINE_string("out", None, "Folder for the results.")
EPOCHS = flags.DEFINE_integer(
    "epochs", 30, "Epochs of each run.", lower_bound=1
)
SEEDS = flags.DEFINE_integer(
    "seeds", 3, "Runs of each optimizer.", lower_bound=1
)
BATCH = flags.DEFINE_integer("batch", 64, "Minibatch size.", lower_bound=1)

# The rivals' rates are those of the paper (section 5.1), not tuned here.
OPTIMIZERS = {
    "HierarchicalRNN": lambda: HierarchicalRNN(),
    "Adam 2e-3": lambda: keras.optimizers.Adam(2e-3),
    "RMSProp 1e-2": lambda: keras.optimizers.RMSprop(1e-2),
}


class Curve(NamedTuple):
    """One run."""

    loss: list  # of the minibatch, at every step
    final_loss: float  # on the whole training set, after the run
    accuracy: float  # on the validation set, after the run
    milliseconds: float  # per step, without the first epoch (compilation)


class _Steps(keras.callbacks.Callback):
    """Loss of every minibatch, and the time of every epoch."""

    def __init__(self, bar):
        super().__init__()
        self.bar, self.loss, self.seconds = bar, [], []

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        # Keras reports the epoch's mean so far: undo the averaging.
        total = logs["loss"] * (batch + 1)
        self.loss.append(total - (self._sum if batch else 0))
        self._sum = total
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self._start)


def train(optimizer, data, seed: int, epochs: int, batch: int, bar) -> Curve:
    """One run: weights and batches depend on the seed alone."""
    keras.utils.set_random_seed(seed)
    model = problems.neural.digits_convnet(seed)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # Whole batches only, so that each step's loss weighs the same.
    n = len(data.y_train) // batch * batch
    steps = _Steps(bar)
    own = isinstance(optimizer, HierarchicalRNN)
    model.fit(
        data.x_train[:n],
        data.y_train[:n],
        batch_size=batch,
        epochs=epochs,
        verbose=0,
        callbacks=[AttentionSwap(), steps] if own else [steps],
    )
    loss, _ = model.evaluate(data.x_train, data.y_train, verbose=0)
    _, accuracy = model.evaluate(data.x_test, data.y_test, verbose=0)
    later = steps.seconds[1:] or steps.seconds
    milliseconds = 1e3 * statistics.median(later) / (n // batch)
    return Curve(steps.loss, loss, accuracy, milliseconds)


def plot(curves: dict, path: pathlib.Path):
    """Training loss against steps: median over seeds, and their range."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for k, (name, runs) in enumerate(curves.items()):
        losses = np.array([_smooth(run.loss) for run in runs])
        steps = np.arange(1, losses.shape[1] + 1)
        style = palette.style(k)
        axes.plot(steps, np.median(losses, 0), label=name, **style)
        axes.fill_between(
            steps, losses.min(0), losses.max(0), color=style["color"],
            alpha=0.15, linewidth=0,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("step (minibatches)")
    axes.set_ylabel("training loss (nats, smoothed over 20 steps)")
    axes.set_title(
        f"Handwritten digits, small ConvNet: median and range of "
        f"{len(next(iter(curves.values())))} seeds"
    )
    axes.grid(True, which="both", alpha=0.2)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _smooth(losses, window: int = 20):
    """Mean over the last `window` steps (fewer at the start)."""
    sums = np.cumsum(np.insert(losses, 0, 0.0))
    stop = np.arange(1, len(losses) + 1)
    start = np.maximum(stop - window, 0)
    return (sums[stop] - sums[start]) / (stop - start)


def write_csv(curves: dict, path: pathlib.Path):
    """Every step of every run: optimizer, seed, step, loss."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["optimizer", "seed", "step", "loss"])
        for name, runs in curves.items():
            for seed, run in enumerate(runs):
                for step, loss in enumerate(run.loss, 1):
                    writer.writerow([name, seed, step, f"{loss:.6g}"])


def report(curves: dict) -> str:
    """The table: medians over seeds."""
    rows = []
    for name, runs in curves.items():
        loss, accuracy, ms = (
            statistics.median(getattr(run, field) for run in runs)
            for field in ("final_loss", "accuracy", "milliseconds")
        )
        rows.append(
            [name, f"{loss:.5f}", f"{100 * accuracy:.1f} %",
             len(runs[0].loss), f"{ms:.2f}"]
        )  # fmt: skip
    header = ["optimizer", "training loss", "validation accuracy", "steps",
              "ms/step"]  # fmt: skip
    return table(header, rows)


def main(argv):
    """Runs everything, prints the table, writes the plot."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are taken. Received: {argv[1:]}")
    folder = pathlib.Path(OUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    data = problems.data.digits()
    if not BATCH.value <= len(data.y_train):
        raise app.UsageError(
            f"Flag --batch must be at most {len(data.y_train)}, the training "
            f"pictures there are. Received: {BATCH.value}"
        )
    per_run = EPOCHS.value * (len(data.y_train) // BATCH.value)
    curves = {name: [] for name in OPTIMIZERS}
    with tqdm(
        total=per_run * SEEDS.value * len(OPTIMIZERS), unit="step"
    ) as bar:
        for name, make in OPTIMIZERS.items():
            for seed in range(SEEDS.value):
                bar.set_description(f"{name}, seed {seed}")
                curves[name].append(
                    train(make(), data, seed, EPOCHS.value, BATCH.value, bar)
                )
    print(f"\nMedians of {SEEDS.value} seeds:\n\n{report(curves)}\n")
    plot(curves, folder / "quickstart.png")
    write_csv(curves, folder / "quickstart.csv")
    print(f"Plot: {folder / 'quickstart.png'}")


def run():
    """Entry point of the console script."""
    flags.mark_flag_as_required("out")
    app.run(main)


if __name__ == "__main__":
    run()
