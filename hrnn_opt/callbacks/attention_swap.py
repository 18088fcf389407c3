"""`AttentionSwap`: which point the model holds when."""

import keras

from hrnn_opt.find_optimizers import learned_optimizers
from hrnn_opt.keras_optimizer import HierarchicalRNN


class AttentionSwap(keras.callbacks.Callback):
    """Validates and saves at theta, trains at the attended point phi.

    Put it first in the list, so that `ModelCheckpoint`, `BackupAndRestore` and
    `EarlyStopping` after it see theta at the end of an epoch. What it swapped
    is part of the optimizer's state, so a run resumed from a file is exact.
    Without attention it does nothing.

    Args:
        swap_on_batch: also swap at the end of every batch, for callbacks that
            save in the middle of an epoch (`save_freq=100`). Costs two passes
            over the parameters a batch.

    Example:
        ```python
        model.fit(x, y, callbacks=[AttentionSwap(), ModelCheckpoint(path)])
        ```
    """

    def __init__(self, swap_on_batch: bool = False):
        super().__init__()
        self.swap_on_batch = swap_on_batch
        self._back_after = {}

    def _to_theta(self) -> list[HierarchicalRNN]:
        """Swaps to theta; the optimizers that were swapped."""
        return [o for o in learned_optimizers(self.model) if o.swap_to_theta()]

    def _to_phi(self):
        for optimizer in learned_optimizers(self.model):
            optimizer.swap_to_phi()

    def on_train_begin(self, logs=None):
        """Tells the optimizer that it is looked after."""
        for optimizer in learned_optimizers(self.model):
            optimizer.swapped_by_callback = True

    def on_epoch_begin(self, epoch, logs=None):
        """Trains at phi."""
        self._to_phi()

    def on_epoch_end(self, epoch, logs=None):
        """Leaves theta to the callbacks after this one."""
        self._to_theta()

    def on_train_batch_begin(self, batch, logs=None):
        """Trains at phi."""
        if self.swap_on_batch:
            self._to_phi()

    def on_train_batch_end(self, batch, logs=None):
        """Leaves theta to the callbacks after this one."""
        if self.swap_on_batch:
            self._to_theta()

    def on_test_begin(self, logs=None):
        """Evaluates at theta."""
        self._back_after["test"] = self._to_theta()

    def on_test_end(self, logs=None):
        """Back to what was there before."""
        for optimizer in self._back_after.pop("test", []):
            optimizer.swap_to_phi()

    def on_predict_begin(self, logs=None):
        """Predicts at theta."""
        self._back_after["predict"] = self._to_theta()

    def on_predict_end(self, logs=None):
        """Back to what was there before."""
        for optimizer in self._back_after.pop("predict", []):
            optimizer.swap_to_phi()
