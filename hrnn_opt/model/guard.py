"""Detects failures of the learned rule, and goes back to the last good point.

Theta is checked every `INTERVAL` steps. The point kept then is a candidate; it
becomes the good point when the next interval goes well, too, so that a failure
never goes back to a point on the brink.

The rule has failed when, over an interval,

- the mean loss (see `HierarchicalRNN.watch`) is not finite, or lies above the
  lowest of all intervals so far by more than `RISE` times the first one's size;
- `PATIENCE` steps in a row were skipped for a NaN or infinite gradient (this is
  checked without waiting for the end of the interval);
- theta is not finite, or moved by more than `JUMP` times (its own root mean
  square + what steps of the initial length could do).

Then theta and the step lengths are set to those of the good point, the averages
are reset, and all further steps are those of `fallback`. If these fail by the
same criteria, theta goes back again, and steps are ten times shorter from then
on.
"""

import numpy as np
from keras import ops

from hrnn_opt import backend
from hrnn_opt.model import kernels
from hrnn_opt.model.attended import keep_zeros
from hrnn_opt.model.replicas import own_copy
from hrnn_opt.rule import fallback
from hrnn_opt.rule.products import from_vector
from hrnn_opt.rule.state import TensorState, initial_param_state

INTERVAL = 100
PATIENCE = 10
RISE = 0.5
JUMP = 10.0


class RollbackGuard:
    """Watches an optimizer's steps.

    Args:
        optimizer: a `HierarchicalRNN` whose `_slots.guard` is a `GuardState`.
    """

    def __init__(self, optimizer):
        self._optimizer, self._slots = optimizer, optimizer._slots
        self._state = optimizer._slots.guard

    def after_step(self):
        """Checks if no check was made for long: `watch` checks earlier.

        After the first step the first point is kept.
        """
        state = self._state
        due = ops.logical_or(
            backend.read(state.since) >= 2 * INTERVAL,
            backend.read(state.bad) >= PATIENCE,
        )
        due = ops.logical_or(due, ops.equal(backend.read(state.points), 0))
        backend.run_if(due, self.check, self._assigned())

    def watch(self, loss, steps):
        """Adds the mean loss of some steps, and checks at intervals."""
        state = self._state
        steps = ops.cast(steps, self._slots.dtype)
        loss = ops.cast(loss, self._slots.dtype)
        state.loss_total.assign(state.loss_total + loss * steps)
        state.loss_steps.assign(state.loss_steps + steps)
        due = backend.read(state.since) >= INTERVAL
        backend.run_if(due, self.check, self._assigned())

    def check(self):
        """Continues or goes back; without any point yet, waits for one."""
        theta, everything = self._theta(), self._assigned()
        failed = self._failed(theta)
        back = ops.logical_and(failed, backend.read(self._state.points) > 0)
        backend.run_if(back, self._go_back, everything)
        backend.run_if(
            ops.logical_not(failed), lambda: self._go_on(theta), everything
        )

    def _failed(self, theta):
        state = self._state
        candidate = backend.read(state.candidate)
        moved, size = _rms(theta - candidate), _rms(candidate)
        lr = ops.cast(self._optimizer.learning_rate, moved.dtype)
        reach = size + lr * ops.cast(state.since, moved.dtype)
        none = ops.equal(backend.read(state.points), 0)
        # Written so that NaN fails.
        steps_fine = ops.logical_or(none, moved <= JUMP * reach)
        steps_fine = ops.logical_and(steps_fine, ops.isfinite(moved))
        loss, seen = self._loss()
        allowed = RISE * ops.maximum(
            ops.abs(state.first_loss), state.first_loss - state.lowest_loss
        )
        first = ops.equal(backend.read(state.intervals), 0)
        low = ops.logical_or(first, loss - state.lowest_loss <= allowed)
        loss_fine = ops.logical_and(low, ops.isfinite(loss))
        loss_fine = ops.logical_or(ops.logical_not(seen), loss_fine)
        # A step that was skipped shows nothing: no point is kept then.
        patient = backend.read(state.bad) < ops.where(none, 1, PATIENCE)
        fine = ops.logical_and(steps_fine, loss_fine)
        return ops.logical_not(ops.logical_and(fine, patient))

    def _loss(self):
        """The interval's mean loss, and whether any loss was watched."""
        steps = backend.read(self._state.loss_steps)
        return self._state.loss_total / ops.maximum(steps, 1), steps > 0

    def _go_on(self, theta):
        """Makes the candidate the good point, and theta the candidate."""
        state = self._state
        since = backend.read(state.since)
        loss, seen = self._loss()
        first = ops.equal(backend.read(state.intervals), 0)
        lowest = ops.minimum(state.lowest_loss, loss)
        for variable, new in (
            (state.first_loss, ops.where(first, loss, state.first_loss)),
            (state.lowest_loss, ops.where(first, loss, lowest)),
            (state.intervals, state.intervals + 1),
        ):
            variable.assign(ops.where(seen, new, backend.read(variable)))
        # The first point is both.
        none = ops.equal(backend.read(state.points), 0)
        for good, candidate, new in (
            (state.good, state.candidate, theta),
            (state.good_lengths, state.candidate_lengths, self._lengths()),
        ):
            good.assign(ops.where(none, new, backend.read(candidate)))
            candidate.assign(new)
        state.points.assign(state.points + 1)
        self._restart()
        # The first interval counts from the first step.
        state.since.assign(ops.where(none, since, ops.zeros_like(since)))

    def _go_back(self):
        """Restores theta and lengths of the good point; resets the averages."""
        state, optimizer = self._state, self._optimizer
        before = backend.read(state.rollbacks)
        lengths = ops.where(
            before > 0,
            state.lengths + fallback.SHORTER,
            backend.read(state.good_lengths),
        )
        at = ops.cast(optimizer.iterations, "int32")
        state.first_rollback_at.assign(
            ops.where(before > 0, backend.read(state.first_rollback_at), at)
        )
        state.rollbacks.assign(before + 1)
        state.lengths.assign(lengths)
        state.candidate_lengths.assign(lengths)
        good = backend.read(state.good)
        state.candidate.assign(good)
        start = 0
        for t, variable in enumerate(optimizer._trainable_variables):
            stop = start + self._slots.sizes[t]
            theta = ops.reshape(good[start:stop], variable.shape)
            start = stop
            own_copy(variable).assign(ops.cast(theta, variable.dtype))
            if optimizer.use_ema:
                average = own_copy(optimizer._averages[t])
                average.assign(ops.cast(theta, average.dtype))
        self._forget(lengths)
        self._restart()

    def _forget(self, lengths):
        """Resets the parameters' state, except for their lengths."""
        slots, config = self._slots, self._optimizer.config
        meta = from_vector(config, backend.read(slots.meta_vector))
        fresh = kernels.pack(initial_param_state(config, meta, (1,)))
        row = np.zeros((config.state_rows, 1))
        row[-1] = config.relative_learning_rate
        row = ops.cast(row, slots.dtype)
        slots.rates.debt.assign(ops.zeros_like(slots.rates.debt))
        # No length grows any more: bases need not wait.
        tensors = TensorState(*ops.unstack(backend.read(slots.tensors)))
        tensors = tensors._replace(average=tensors.log_step)
        slots.tensors.assign(ops.stack(tensors))
        for t, pieces in enumerate(slots.states):
            column = fresh + row * lengths[t]
            for piece in pieces:
                kept = ops.cast(column, piece.dtype)
                piece.assign(ops.broadcast_to(kept, piece.shape))
            for offset in slots.offsets[t]:
                offset.assign(ops.zeros_like(offset))

    def _restart(self):
        state = self._state
        for variable in (
            state.since, state.bad, state.loss_total, state.loss_steps
        ):  # fmt: skip
            variable.assign(ops.zeros_like(variable))

    def _theta(self):
        """All tensors in one vector."""
        slots = self._slots

        def joined(parts):
            return ops.concatenate(
                [ops.reshape(ops.cast(p, slots.dtype), (-1,)) for p in parts]
            )

        values = joined(map(backend.read, self._optimizer._trainable_variables))
        if not self._optimizer.config.attention:
            return values
        offsets = [backend.read(o) for own in slots.offsets for o in own]
        held = 1 - slots.holds_theta_as_float()
        return keep_zeros(values, values - held * joined(offsets))

    def _lengths(self):
        """Mean of eta_bar over each tensor; 0, the initial length, if none.

        It is relative to the learning rate alone, without debt (see `rates`).
        """
        slots = self._slots
        if not self._optimizer.config.relative_learning_rate:
            return ops.zeros_like(self._state.lengths)
        sums = map(slots.sum_of_log_steps, range(len(slots.sizes)))
        sizes = [max(size, 1) for size in slots.sizes]
        means = ops.stack(list(sums)) / ops.cast(sizes, slots.dtype)
        return means - backend.read(slots.rates.debt)[0]

    def _assigned(self) -> list:
        """All variables that a check may assign."""
        optimizer, slots = self._optimizer, self._slots
        averages = optimizer._averages if optimizer.use_ema else []
        return [
            *self._state.variables,
            *slots.changing(range(len(slots.sizes))),
            *optimizer._trainable_variables,
            *averages,
        ]


def _rms(x):
    """Root mean square."""
    return ops.sqrt(ops.mean(x * x))
