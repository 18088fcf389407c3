"""`Guard`: tells the optimizer's guard the loss."""

import numpy as np
from keras import callbacks, ops

from hrnn_opt.find_optimizers import learned_optimizers
from hrnn_opt.model import guard, guard_warnings


class Guard(callbacks.Callback):
    """Lets `HierarchicalRNN(guard=True)` watch the training loss.

    At intervals (`hrnn_opt.model.guard.INTERVAL`), and at the end of an epoch,
    the optimizer is told the mean loss since the last time. When it goes back
    to the last good point, the model's other variables (the statistics of
    `BatchNormalization`) go back, too, and its metrics are reset, since they
    may hold NaN. Copies of these variables are kept in the callback, not in a
    saved file.

    Put it after `AttentionSwap`.

    Raises:
        ValueError: no optimizer of the model has guard=True.

    Example:
        ```python
        model.compile(optimizer=HierarchicalRNN(guard=True), loss="mse")
        model.fit(x, y, callbacks=[AttentionSwap(), Guard()])
        ```
    """

    def on_train_begin(self, logs=None):
        """Tells the optimizer that its loss is watched."""
        optimizers = learned_optimizers(self.model)
        self._guarded = [o for o in optimizers if o.guard]
        if not self._guarded:
            raise ValueError(
                "The callback Guard needs HierarchicalRNN(guard=True). "
                f"Received: optimizer={self.model.optimizer!r}"
            )
        for optimizer in self._guarded:
            optimizer.guarded_by_callback = True
        self._rollbacks = [o.rollbacks for o in self._guarded]
        self._good = self._candidate = self._others()

    def on_epoch_begin(self, epoch, logs=None):
        """Counts from 0: the loss in `logs` is the mean over the epoch."""
        self._told = self._batches = self._total = self._from = 0
        self._logs = {}

    def on_train_batch_end(self, batch, logs=None):
        """Reports at intervals. `batch` is the last one of the execution."""
        self._batches, self._logs = batch + 1, logs or {}
        if self._batches - self._told >= guard.INTERVAL:
            self._report()

    def on_epoch_end(self, epoch, logs=None):
        """Reports the remaining batches, so that no loss is left out."""
        if self._batches > self._told:
            self._report()

    def _report(self):
        """Reports the mean loss of the batches since the last report."""
        steps = self._batches - self._told
        loss = float(self._logs.get("loss", np.nan))
        # Keras's own `loss` is the mean since its metrics were reset.
        if any(metric.name == "loss" for metric in self.model.metrics):
            total = loss * (self._batches - self._from)
            loss, self._total = (total - self._total) / steps, total
        self._told = self._batches
        went_back = checked = False
        for k, optimizer in enumerate(self._guarded):
            # After skipped steps it goes back by itself: this loss is outdated.
            if optimizer.rollbacks == self._rollbacks[k]:
                optimizer.watch(loss, steps)
            guard_warnings.warn_of_rollbacks(optimizer)
            went_back |= optimizer.rollbacks > self._rollbacks[k]
            self._rollbacks[k] = optimizer.rollbacks
            checked |= optimizer._slots.guard.just_checked()
        if went_back:
            self._go_back()
        elif checked:
            self._good, self._candidate = self._candidate, self._others()

    def _go_back(self):
        for variable, value in zip(
            self.model.non_trainable_variables, self._good, strict=True
        ):
            if value is not None:
                variable.assign(value)
        self._candidate = self._good
        self.model.reset_metrics()
        self._total, self._from = 0, self._batches

    def _others(self) -> list:
        """Copies of the variables that no optimizer trains; None for those that
        hold no floats, such as states of random generators."""
        return [
            ops.convert_to_numpy(v).copy() if "float" in str(v.dtype) else None
            for v in self.model.non_trainable_variables
        ]
