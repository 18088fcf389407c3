"""When the learned rule fails: back to the last good point, and other steps.

Every `INTERVAL` steps theta is looked at. The point kept then is a candidate;
it becomes the good one when the interval after it went well, too, so that a
point on the brink is never what a failure goes back to.

It has failed when, over an interval,

- the mean loss (see `HierarchicalRNN.watch`) is not finite, or lies above the
  lowest of all intervals so far by more than `RISE` times the first one's size;
- `PATIENCE` steps in a row were skipped for a NaN or infinite gradient, which
  is not waited for;
- theta is not finite, or moved by more than `JUMP` times (its own root mean
  square + what steps of the initial length could do).

Then theta and the step lengths are those of the good point, the averages start
anew, and all further steps are those of `fallback`. If these fail by the same
measure they go back, too, and are ten times shorter from then on.
"""

import math

from keras import ops

from hrnn_opt import backend, fallback, kernels, rule
from hrnn_opt.meta_parameters import unflatten

INTERVAL = 100
PATIENCE = 10
RISE = 0.5
JUMP = 10.0


class Guard:
    """Looks after an optimizer's steps.

    Args:
        optimizer: a `HierarchicalRNN` whose `_slots.guard` is a `GuardState`.
    """

    def __init__(self, optimizer):
        self._optimizer, self._slots = optimizer, optimizer._slots
        self._state = optimizer._slots.guard

    def before_step(self):
        """The first point of all is kept."""
        state = self._state

        def keep():
            # Both are this point.
            self._keep()
            self._keep()

        backend.run_if(
            ops.equal(backend.read(state.points), 0), keep, state.variables
        )

    def after_step(self):
        """Checks, if it is late: whoever watches the loss does so earlier."""
        state = self._state
        due = ops.logical_or(
            backend.read(state.since) >= 2 * INTERVAL,
            backend.read(state.bad) >= PATIENCE,
        )
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
        """Goes on or back."""
        failed = self._failed()
        everything = self._assigned()
        backend.run_if(failed, self._go_back, everything)
        backend.run_if(ops.logical_not(failed), self._go_on, everything)

    def _failed(self):
        state = self._state
        theta = self._theta()
        pairs = list(zip(theta, state.candidate, strict=True))
        moved = _rms([new - backend.read(old) for new, old in pairs])
        size = _rms([backend.read(old) for _, old in pairs])
        lr = ops.cast(self._optimizer.learning_rate, moved.dtype)
        reach = lr * ops.cast(state.since, moved.dtype)
        # Written so that NaN fails.
        steps_fine = moved <= JUMP * (size + reach)
        loss, seen = self._loss()
        rise = loss - state.lowest_loss
        allowed = RISE * ops.maximum(
            ops.abs(state.first_loss), state.first_loss - state.lowest_loss
        )
        first = ops.equal(backend.read(state.intervals), 0)
        loss_fine = ops.logical_and(
            ops.isfinite(loss), ops.logical_or(first, rise <= allowed)
        )
        loss_fine = ops.logical_or(ops.logical_not(seen), loss_fine)
        patient = backend.read(state.bad) < PATIENCE
        fine = ops.logical_and(steps_fine, loss_fine)
        return ops.logical_not(ops.logical_and(fine, patient))

    def _loss(self):
        """The interval's mean, and whether any was watched."""
        steps = backend.read(self._state.loss_steps)
        return self._state.loss_total / ops.maximum(steps, 1), steps > 0

    def _go_on(self):
        state = self._state
        loss, seen = self._loss()
        first = ops.equal(backend.read(state.intervals), 0)
        lowest = ops.minimum(state.lowest_loss, loss)
        for variable, new in (
            (state.first_loss, ops.where(first, loss, state.first_loss)),
            (state.lowest_loss, ops.where(first, loss, lowest)),
            (state.intervals, state.intervals + 1),
        ):
            variable.assign(ops.where(seen, new, backend.read(variable)))
        self._keep()
        self._restart()

    def _keep(self):
        """The candidate was good; theta is the new candidate."""
        state = self._state
        state.good_lengths.assign(backend.read(state.candidate_lengths))
        state.candidate_lengths.assign(self._lengths())
        for t, theta in enumerate(self._theta()):
            state.good[t].assign(backend.read(state.candidate[t]))
            state.candidate[t].assign(theta)
        state.points.assign(state.points + 1)

    def _go_back(self):
        """Theta and lengths of the good point; the averages start anew."""
        state, slots, optimizer = self._state, self._slots, self._optimizer
        before = backend.read(state.handovers)
        lengths = ops.where(
            before > 0,
            state.lengths + fallback.SHORTER,
            backend.read(state.good_lengths),
        )
        at = ops.cast(optimizer.iterations, "int32")
        state.handed_over_at.assign(
            ops.where(before > 0, backend.read(state.handed_over_at), at)
        )
        state.handovers.assign(before + 1)
        state.lengths.assign(lengths)
        state.candidate_lengths.assign(lengths)
        meta = unflatten(optimizer.config, backend.read(slots.meta_vector))
        for t, variable in enumerate(optimizer._trainable_variables):
            good = backend.read(state.good[t])
            variable.assign(ops.cast(good, variable.dtype))
            state.candidate[t].assign(good)
            if optimizer.use_ema:
                average = optimizer._model_variables_moving_average[t]
                average.assign(ops.cast(good, average.dtype))
            for piece in slots.states[t]:
                fresh = rule.initial_param_state(
                    optimizer.config, meta, (piece.shape[1],)
                )
                if fresh.eta_bar is not None:
                    fresh = fresh._replace(eta_bar=fresh.eta_bar + lengths[t])
                piece.assign(kernels.pack(fresh))
            for offset in slots.offsets[t]:
                offset.assign(ops.zeros_like(offset))
        self._restart()

    def _restart(self):
        state = self._state
        for variable in (
            state.since, state.bad, state.loss_total, state.loss_steps
        ):  # fmt: skip
            variable.assign(ops.zeros_like(variable))

    def _theta(self) -> list:
        return [
            ops.cast(
                self._optimizer._shifted(v, t, -1, rounded=False),
                self._slots.dtype,
            )
            for t, v in enumerate(self._optimizer._trainable_variables)
        ]

    def _lengths(self):
        """Mean of eta_bar over each tensor; 0, the initial length, without."""
        slots = self._slots
        if not self._optimizer.config.relative_learning_rate:
            return ops.zeros_like(self._state.lengths)
        sums = [
            sum(ops.sum(piece[-1]) for piece in pieces)
            if pieces
            else ops.zeros((), slots.dtype)
            for pieces in slots.states
        ]
        return ops.stack(sums) / ops.cast(
            [max(size, 1) for size in slots.sizes], slots.dtype
        )

    def _assigned(self) -> list:
        """All variables that a check may assign."""
        optimizer, slots = self._optimizer, self._slots
        averages = (
            optimizer._model_variables_moving_average
            if optimizer.use_ema
            else []
        )
        return [
            *self._state.variables,
            *slots.changing(range(len(slots.sizes))),
            *optimizer._trainable_variables,
            *averages,
        ]


def _rms(arrays):
    """Root mean square over all elements of some arrays."""
    count = sum(math.prod(a.shape) for a in arrays)
    return ops.sqrt(sum(ops.sum(a * a) for a in arrays) / count)
