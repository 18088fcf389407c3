"""`Telemetry`: the optimizer's state on TensorBoard."""

import numpy as np
from keras import callbacks, ops

from hrnn_opt.find_optimizers import learned_optimizers
from hrnn_opt.telemetry import statistics


class Telemetry(callbacks.Callback):
    """Writes what the optimizer does to each tensor, for TensorBoard.

    For every trainable variable, by its path: `step_length` (mean of the
    logarithm, base 10) and `step_length_spread`, `momentum_steps` and
    `magnitude_steps` (how long the shortest averages of Eqs. 1-2 remember),
    `gradient`, `slow_gradient`, `magnitude` and `rescaled_gradient` (root mean
    squares of what these averages hold); see `hrnn_opt.telemetry.Statistics`.
    For the whole: `learning_rate` and `skipped_steps`, with a guard
    `rollbacks`. The step of the summaries is `optimizer.iterations`.

    All of it is read from the optimizer's state: no gradient is taken.

    Args:
        log_dir: folder of the event files.
        every: number of steps from one reading to the next.

    Raises:
        ValueError: `every` is not an integer of at least 1, or the model that
            trains has no `HierarchicalRNN`.

    Example:
        ```python
        model.fit(x, y, callbacks=[AttentionSwap(), Telemetry("logs")])
        # tensorboard --logdir=logs
        ```
    """

    def __init__(self, log_dir, every: int = 100):
        super().__init__()
        if type(every) is not int or every < 1:
            raise ValueError(
                "Argument `every` must be an integer of at least 1. "
                f"Received: every={every!r}"
            )
        self.log_dir, self.every = str(log_dir), every
        self._writer = None
        self._batches = 0  # of this epoch
        self._since = 0

    def on_train_begin(self, logs=None):
        """Opens the event file."""
        # Imported here, since the other callbacks work without TensorFlow.
        import tensorflow as tf

        if not learned_optimizers(self.model):
            raise ValueError(
                "Telemetry needs a model with a HierarchicalRNN. Received: "
                f"optimizer={self.model.optimizer!r}"
            )
        self._since = 0
        self._writer = tf.summary.create_file_writer(self.log_dir)

    def on_epoch_begin(self, epoch, logs=None):
        """Batches count from 0 in every epoch."""
        self._batches = 0

    def on_train_batch_end(self, batch, logs=None):
        """Writes, if it is time. `batch` is the last one of the execution."""
        self._since += batch + 1 - self._batches
        self._batches = batch + 1
        if self._since >= self.every:
            self._since = 0
            self.write()

    def on_train_end(self, logs=None):
        """Closes the event file."""
        self._writer.close()
        self._writer = None

    def write(self):
        """Reads the state of all learned optimizers, and writes it."""
        import tensorflow as tf
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        optimizers = learned_optimizers(self.model)
        for optimizer in optimizers:
            if not optimizer.built:
                continue
            prefix = f"{optimizer.name}/" if len(optimizers) > 1 else ""
            # All in one record: a `tf.summary.scalar` costs 25 times as much.
            record = Summary()
            for tag, value in scalars(optimizer).items():
                record.MergeFrom(scalar_pb(prefix + tag, value))
            step = int(ops.convert_to_numpy(optimizer.iterations))
            with self._writer.as_default():
                tf.summary.experimental.write_raw_pb(
                    record.SerializeToString(), step
                )


def scalars(optimizer) -> dict[str, float]:
    """What `Telemetry` writes for a built optimizer: numbers by tag."""
    found = {
        "optimizer/learning_rate": float(
            ops.convert_to_numpy(optimizer.learning_rate)
        ),
        "optimizer/skipped_steps": float(optimizer.skipped_steps),
    }
    if optimizer.guard:
        found["optimizer/rollbacks"] = float(optimizer.rollbacks)
    names = [v.path for v in optimizer._trainable_variables]
    for kind, values in statistics(optimizer)._asdict().items():
        if values is None:
            continue
        for name, value in zip(names, values, strict=True):
            if np.isfinite(value):
                found[f"{kind}/{name}"] = float(value)
    return found
