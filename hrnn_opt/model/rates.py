"""How a schedule acts: it multiplies the step lengths that the rule finds.

Step lengths are multiples of the current learning rate, and the rule lengthens
steps that are too short. A tiny rate hides this growth, and steps would be far
too long once the rate is back. So

- at a rate below `STILL` of the largest so far (the *reference*, which fades)
  steps are made, short as they are, but the state is frozen, as it is at 0:
  what such steps show is no reason for longer ones later;
- at a rate below `SHARE` of the reference the mean log length of a tensor stays
  at or below its *ceiling*, its value when the rate was last above that share;
- a rate above the reference takes growth back: it lengthens steps only as far
  as the initial length of the new rate. What was taken back is the tensor's
  *debt*, and its lengths are multiples of exp(-debt) times the rate. The
  average that bounds growth (`step_length.growth_excess`) is one of lengths
  less the debt: what was taken back may be found again at the new rate.

Not in the paper, which has no schedules. A constant rate changes nothing, bit
for bit: the reference equals the rate, and no tensor has a debt.
"""

from typing import Any, NamedTuple

from keras import ops

from hrnn_opt import backend

STILL = 1 / 30
"""Below this share steps hardly move anything, and would only show that they
are too short."""

SHARE = 0.5
"""Above this share growth is not limited, so that at most this factor of it can
be hidden."""

FADING = 1e-4
"""Share that the reference loses in every step: a permanently lowered rate
becomes the reference after some ten thousand steps."""


class Rates(NamedTuple):
    """What is remembered of learning rates."""

    reference: Any  # the largest one, a scalar; 0 before the first step
    ceiling: Any  # [1, T] mean log step length
    debt: Any  # [1, T] of log step lengths


def follow(rates: Rates, log_step, lr) -> tuple[Rates, Any, Any]:
    """Updates the rates, and finds by how much step lengths are too long.

    Args:
        rates: rates after the last step.
        log_step: mean log step length of each tensor after the last step,
            [1, T].
        lr: learning rate of this step, a scalar above 0.

    Returns:
        The new rates; the excess [1, T], to be subtracted from the log step
        lengths before this step; and whether the state is frozen.
    """
    before = rates.reference
    known = before > 0
    ratio = lr / ops.where(known, before, ops.ones_like(before))
    ratio = ops.where(known, ratio, ops.ones_like(ratio))
    rise = _positive(ops.log(ratio))
    grown = _positive(log_step - rates.debt)
    # The smaller of the two.
    debt = rates.debt + (rise - _positive(rise - grown))
    reference = backend.maximum(lr, (1 - FADING) * before)
    low = lr < SHARE * reference
    ceiling = ops.where(low, rates.ceiling, log_step)
    excess = _positive(log_step - ceiling)
    return Rates(reference, ceiling, debt), excess, still(before, lr)


def still(before, lr):
    """Whether the state is frozen at a learning rate.

    Args:
        before: the reference after the last step.
        lr: learning rate of this step, a scalar above 0.
    """
    return lr < STILL * backend.maximum(lr, (1 - FADING) * before)


def _positive(x):
    return backend.maximum(x, ops.zeros_like(x))


def lent(lr, debt):
    """The rate that a tensor's lengths are multiples of, [T] or [1, T]."""
    return lr * ops.exp(-debt)
