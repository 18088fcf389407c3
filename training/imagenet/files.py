"""Files of a run: curves, events for TensorBoard, and checkpoints."""

import csv
import io
import pathlib
import tempfile

import tensorflow as tf

from training import replicas
from training.common.files import write


class Curve:
    """A CSV file with a line for every few steps.

    Each line is written to disk before the next step, so an interrupted run
    leaves a readable file. When the run continues, the lines of steps that
    will be repeated are dropped.

    Args:
        path: path of the file.
        columns: names of the columns; the first must be "step".
        step: number of steps taken before, at which the run continues.
    """

    def __init__(self, path: pathlib.Path, columns: list[str], step: int):
        self.columns = columns
        kept = [row for row in read_curve(path) if int(row["step"]) <= step]
        self.last = kept[-1] if kept else None
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(kept)
        write(path, text.getvalue())
        self._file = path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, columns)

    def add(self, **values):
        """Writes one line."""
        self._writer.writerow(
            {k: f"{v:.7g}" if isinstance(v, float) else v
             for k, v in values.items()}
        )  # fmt: skip
        self._file.flush()

    def close(self):
        """Closes the file."""
        self._file.close()


def read_curve(path: pathlib.Path) -> list[dict]:
    """The complete lines of a curve, by column; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    # The machine may have stopped while it wrote the last one.
    return [row for row in rows if None not in row.values()]


class Checkpoints:
    """All of a run's state, in TensorFlow checkpoints.

    The model's variables are saved as training leaves them (for the learned
    optimizer, at the attended point), together with the optimizer's, so a run
    continues exactly. On several machines all must call the same methods, and
    read the folder of the first machine.

    Args:
        folder: folder of the checkpoints.
        strategy: strategy of the replicas.
        model: model of the run.
        optimizer: optimizer of the run, built.
        keep: number of newest checkpoints that are kept.
    """

    def __init__(self, folder, strategy, model, optimizer, keep: int = 2):
        self.step = tf.Variable(0, dtype="int64", trainable=False)
        # By position: names of Keras's variables differ between processes.
        checkpoint = tf.train.Checkpoint(
            step=self.step,
            model=_variables(model),
            optimizer=_variables(optimizer),
        )
        self._scratch = None
        own = folder
        if not replicas.is_chief(strategy):
            # All machines must take part, but only one may write to the folder.
            self._scratch = tempfile.TemporaryDirectory()
            own = self._scratch.name
        self._checkpoint, self._folder = checkpoint, str(folder)
        self._manager = tf.train.CheckpointManager(
            checkpoint, str(own), max_to_keep=keep
        )

    def restore(self) -> int:
        """Restores the newest checkpoint; returns the steps taken before it."""
        newest = tf.train.latest_checkpoint(self._folder)
        if newest is not None:
            status = self._checkpoint.restore(newest)
            status.assert_consumed()
        return int(self.step)

    def save(self, step: int):
        """Writes the checkpoint for a step."""
        self.step.assign(step)
        self._manager.save(checkpoint_number=step)


def _variables(of) -> list:
    """The TensorFlow variables inside Keras's variables."""
    return [getattr(v, "value", v) for v in of.variables]
