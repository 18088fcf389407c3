"""What separates a model's variables from theta, and the swap between them."""

import contextlib
import sys

from keras import ops

from hrnn_opt import backend


def keep_zeros(phi, theta):
    """theta, but 0 where a variable that holds phi is exactly 0.

    Such an element is masked after every step, as in pruning: where there is an
    offset, phi is never 0 by chance.
    """
    return ops.where(ops.equal(phi, 0), ops.zeros_like(theta), theta)


class Attended:
    """The part of the optimizer that knows where phi is (section 3.2.1).

    It needs `config`, `built`, `_slots` and `_trainable_variables`.
    """

    def _shifted(self, variable, t, sign, rounded=True):
        """A variable plus or minus its offset from theta.

        The sum is taken in the state's precision, and rounded once.
        """
        value = backend.read(variable)
        if not self.config.attention:
            return value
        held = 1 - self._slots.holds_theta_as_float()
        offset = sign * held * self._slots.offset(t)
        shifted = ops.cast(value, self._slots.dtype) + offset
        if sign < 0:
            shifted = keep_zeros(value, shifted)
        return ops.cast(shifted, variable.dtype) if rounded else shifted

    @property
    def _model_variables_moving_average(self):
        """Averages of theta, as Keras calls them.

        `keras.callbacks.SwapEMAWeights` exchanges them with the variables, and
        must find theta there. It calls no method of an optimizer, and another
        callback cannot know when it runs.
        """
        averages = self._averages
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.endswith("swap_ema_weights"):
            self.swap_to_theta()
        return averages

    @_model_variables_moving_average.setter
    def _model_variables_moving_average(self, averages):
        self._averages = averages

    # The swap between phi and theta, in host code.

    @property
    def holds_theta(self) -> bool:
        """Whether the variables hold theta now, and not phi."""
        if not (self.built and self.config.attention):
            return True
        return bool(backend.read(self._slots.holds_theta))

    def swap_to_theta(self) -> bool:
        """Puts theta into the variables, to evaluate or save.

        In variables of less precision than the state (bfloat16) theta is
        rounded, and what was lost stays lost when phi comes back.

        Returns:
            Whether anything changed: False if they held theta already.
        """
        if self.holds_theta:
            return False
        for t, v in enumerate(self._trainable_variables):
            v.assign(self._shifted(v, t, -1))
        self._slots.holds_theta.assign(1)
        return True

    def swap_to_phi(self) -> bool:
        """Puts the attended point into the variables, to train.

        Returns:
            Whether anything changed.
        """
        if not self.config.attention or not self.holds_theta or not self.built:
            return False
        self._slots.holds_theta.assign(0)
        for t, v in enumerate(self._trainable_variables):
            v.assign(self._shifted(v, t, 1))
        return True

    @contextlib.contextmanager
    def at_theta(self):
        """`with optimizer.at_theta(): evaluate()`, in a custom loop."""
        self.swapped_by_callback = True
        swapped = self.swap_to_theta()
        try:
            yield
        finally:
            if swapped:
                self.swap_to_phi()
