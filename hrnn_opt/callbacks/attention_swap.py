"""`AttentionSwap`: swaps phi and theta at the right moments of `fit`."""

import signal
import threading
import warnings
import weakref

import keras

from hrnn_opt.find_optimizers import learned_optimizers
from hrnn_opt.keras_optimizer import HierarchicalRNN


class AttentionSwap(keras.callbacks.Callback):
    """Validates and saves at theta, trains at the attended point phi.

    Only for rules with attention, such as `HierarchicalRNN(weights="paper")`;
    with others it does nothing.

    Put it first in the list, so that `ModelCheckpoint`, `BackupAndRestore` and
    `EarlyStopping` after it see theta at the end of an epoch. Which point the
    variables hold is part of the optimizer's state, so a run resumed from a
    file is exact. `keras.callbacks.SwapEMAWeights` may stand before or after
    it. After `fit` the model holds theta, also when it was interrupted by
    Ctrl-C.

    Args:
        swap_on_batch: also swap at the end of every batch, for callbacks that
            save in the middle of an epoch (`save_freq=100`) or change weights
            after a batch, which then change theta. Costs two passes over the
            parameters a batch. (Without it a weight that a callback sets to
            exactly 0 is 0 in theta, too; another change moves phi and theta by
            the same amount.)
        optimizers: the optimizers to swap. None stands for that of
            `model.compile` and those that are attributes of the model.

    Example:
        ```python
        model.fit(x, y, callbacks=[AttentionSwap(), ModelCheckpoint(path)])
        ```
    """

    def __init__(
        self,
        swap_on_batch: bool = False,
        optimizers: list[HierarchicalRNN] | None = None,
    ):
        super().__init__()
        self.swap_on_batch = swap_on_batch
        self._given = None if optimizers is None else list(optimizers)
        self._back_after = {}
        self._training = self._back_in_batch = False
        self._interrupt = None

    def _optimizers(self) -> list[HierarchicalRNN]:
        if self._given is not None:
            return self._given
        return learned_optimizers(self.model)

    def _to_theta(self) -> list[HierarchicalRNN]:
        """Swaps to theta, and returns the optimizers that were swapped."""
        return [o for o in self._optimizers() if o.swap_to_theta()]

    def _to_phi(self):
        for optimizer in self._optimizers():
            optimizer.swap_to_phi()

    def on_train_begin(self, logs=None):
        """Tells the optimizers that a callback swaps for them."""
        optimizers = self._optimizers()
        if not optimizers:
            warnings.warn(
                "The callback AttentionSwap found no HierarchicalRNN: neither "
                "is `model.optimizer` one, nor an attribute of the model. Pass "
                "it as AttentionSwap(optimizers=[...]).",
                stacklevel=2,
            )
        for optimizer in optimizers:
            optimizer.swapped_by_callback = True
        self._training = True
        if any(o.config.attention for o in optimizers):
            self._watch_for_interrupt()

    def on_train_end(self, logs=None):
        """Swaps to theta for good."""
        self._training = False
        self._to_theta()
        if self._interrupt is not None:
            signal.signal(signal.SIGINT, self._interrupt)
            self._interrupt = None

    def _watch_for_interrupt(self):
        """Keras calls no callback after Ctrl-C; Python calls this first."""
        before = signal.getsignal(signal.SIGINT)
        main = threading.current_thread() is threading.main_thread()
        if not (main and callable(before)) or self._interrupt is not None:
            return

        # Nor does it call one when `fit` fails: this must not keep the model
        # alive.
        kept = weakref.ref(self)

        def swap_first(number, frame):
            signal.signal(signal.SIGINT, before)
            callback = kept()
            if callback is not None:
                callback._interrupt, callback._training = None, False
                callback._to_theta()
            return before(number, frame)

        self._interrupt = before
        signal.signal(signal.SIGINT, swap_first)

    def on_epoch_begin(self, epoch, logs=None):
        """Swaps to phi when the first batch begins."""
        self._back_in_batch = True

    def on_epoch_end(self, epoch, logs=None):
        """Leaves theta to the callbacks after this one."""
        self._to_theta()

    def on_train_batch_begin(self, batch, logs=None):
        """Swaps to phi.

        This happens only here: at the end of a validation and at the beginning
        of an epoch another callback may still have to put theta back.
        """
        if self.swap_on_batch or self._back_in_batch:
            self._back_in_batch = False
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
        self._back("test")

    def on_predict_begin(self, logs=None):
        """Predicts at theta."""
        self._back_after["predict"] = self._to_theta()

    def on_predict_end(self, logs=None):
        """Back to what was there before."""
        self._back("predict")

    def _back(self, kind):
        swapped = self._back_after.pop(kind, [])
        if self._training:
            self._back_in_batch = True
            return
        for optimizer in swapped:
            optimizer.swap_to_phi()
