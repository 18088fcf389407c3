"""From directions to steps: Eqs. 5-9 and the attended point (section 3.2)."""

import numpy as np
from keras import ops

from hrnn_opt import backend
from hrnn_opt.rule.numerics import safe_divide, safe_sqrt

SPREAD = 5.0
"""Largest distance of a parameter's eta_bar from the mean of all: a factor of
150. Without a limit, parameters whose gradients are tiny but of one sign (those
of a dead unit, for example) lengthen their steps forever. One in a thousand is
enough to ruin a network, and small problems do not show it."""


def update_log_step(eta_bar, mean_eta_bar, delta_eta, gamma):
    """Eqs. 7-8: eta = eta_bar + delta_eta; eta_bar <- moving average of eta.

    Differs from the paper, where the two are circular as printed: eta is
    relative to the *old* average, and scales the step of the same iteration.
    Besides, the old average counts as no further than `SPREAD` from the mean.

    Args:
        eta_bar: average log step length, relative to the config's unit.
        mean_eta_bar: its mean over all parameters of the problem.
        delta_eta: change of the log step length, from the RNN.
        gamma: momentum of the average, in (0, 1).

    Returns:
        eta, and the new eta_bar.
    """
    relative = ops.clip(eta_bar - mean_eta_bar, -SPREAD, SPREAD)
    eta_bar = mean_eta_bar + relative
    eta = eta_bar + delta_eta
    return eta, gamma * eta_bar + (1 - gamma) * eta


def tensor_excess(log_step, mean_eta_bar, spread: float):
    """By how much step lengths of a tensor are lowered before its next step.

    Not in the paper. One tensor whose steps are far longer than all others
    spoils a network: its noise turns the gradients of the others, whose steps
    then shrink instead of its own.

    Args:
        log_step: mean eta_bar of each tensor, [1, T, ...].
        mean_eta_bar: its mean over all parameters of the problem, [...].
        spread: largest distance above that mean.

    Returns:
        [1, T, ...], 0 within the bound.
    """
    above = log_step - mean_eta_bar - spread
    return ops.relu(above)


def log_length(squares, d_squared):
    """log rms(exp(eta) d) / rms(d): a tensor's log step length in this step.

    Args:
        squares: sums of the squares of exp(eta) d, [1, T, ...].
        d_squared: sums of the squares of d.

    Returns:
        The logarithms, 0 where nothing moves, and whether something does.
    """
    moves = ops.logical_and(squares > 0, d_squared > 0)
    ones = ops.ones_like(squares)
    squares = ops.where(moves, squares, ones)
    d_squared = ops.where(moves, d_squared, ones)
    return 0.5 * (ops.log(squares) - ops.log(d_squared)), moves


def step_excess(squares, d_squared, count, spread: float):
    """By how much the step of a tensor is longer than it may be, as a log.

    Not in the paper. `tensor_excess` bounds averages, this what is done: where
    all gradients of a tensor agree, the RNN adds to its step length at once, in
    every step. In the last kernel of a network for 1,000 classes they do, since
    nearly all classes are absent from a minibatch: its steps grew to twenty
    times those of the others, and with them the loss of every new class.

    Args:
        squares: sums of the squares of exp(eta) d, [1, T, ...].
        d_squared: sums of the squares of d.
        count: number of elements that have a gradient.
        spread: largest distance of `log_length` above its mean over all
            elements that have a gradient.

    Returns:
        [1, T, ...], 0 within the bound.
    """
    length, moves = log_length(squares, d_squared)
    number = ops.where(moves, count, ops.zeros_like(count))
    total = ops.sum(length * number, axis=(0, 1))
    mean = safe_divide(total, ops.sum(number, axis=(0, 1)))
    return ops.relu(length - mean - spread)


SETTLING = 4000.0
"""In step n the bound of `growth_excess` is 1 + this / n times as far away: a
tensor's step length may change by orders of magnitude until it is found."""

DECAYING = 1000.0
"""From about this step on, `decay` acts in `growth_excess`."""


def growth_excess(log_step, average, steps, growth: float, decay: float = 0.0):
    """By how much a tensor's step lengths are too far above their average.

    Not in the paper. Without a bound, step lengths drift upwards after some
    thousand steps of persistent noise, until the network has forgotten all.
    With it, they grow by a factor of at most exp(2 `growth`) while n grows by a
    factor e, after the first steps. With `decay` they fall: at last at least as
    fast as n to the power of -2 (`decay` - `growth`). In persistent noise,
    which sets the loss of long runs, no constant step length is right.

    Args:
        log_step: mean eta_bar of each tensor, [1, T, ...].
        average: its `average_over_log_time`, [1, T, ...].
        steps: n, number of steps the tensor has made, [1, T, ...].
        growth: largest distance above the average, for n far above `SETTLING`.
        decay: what is subtracted from it for n far above `DECAYING`.

    Returns:
        [1, T, ...], 0 within the bound.
    """
    # Before the first step both are 0.
    early = safe_divide(SETTLING * ops.ones_like(steps), steps)
    bound = growth * (1 + early)
    if decay:
        bound = bound - decay * steps / (steps + DECAYING)
    return ops.relu(log_step - average - bound)


def average_over_log_time(average, log_step, steps):
    """average <- average + min(1, 2 / n) (log_step - average).

    Half of the weight is on the steps since 0.7 n: fluctuations of the step
    length hardly move it, and it forgets at the pace at which time passes.

    Args:
        average: the old average, [1, T, ...].
        log_step: the new mean eta_bar, [1, T, ...].
        steps: n, number of steps the tensor has made with this one.
    """
    weight = backend.minimum(
        ops.ones_like(steps), 2 / backend.maximum(steps, ops.ones_like(steps))
    )
    return average + weight * (log_step - average)


def sparsity(moving, sizes):
    """How much rare elements of a tensor catch up: a^4, in [0, 1].

    a is the share of the tensor's elements without a gradient in the last step:
    nearly 1 for a table of words, where all are rare. Where most elements are
    there in every step, the others belong to units that have died, and long
    steps of these would only disturb.

    Args:
        moving: number of elements that had a gradient, [1, T, ...]; 0 before
            the first step.
        sizes: number of all elements.
    """
    return (1 - moving / sizes) ** 4


def catch_up(u, steps, own_steps, weight, limit: float):
    """u (1 + w (n / c - 1)): a rare element makes up for steps it missed.

    Not in the paper. Rows of an embedding, and inputs that are rarely there,
    have a gradient in c of n steps. Normalised in their own time (see
    `config.RuleConfig.lazy`), their steps would be as long as those of others,
    and they would move by c / n as much. Adam's moments, which decay meanwhile,
    have a similar effect, sqrt(n / c).

    Args:
        u: unscaled steps, [directions, R, width, ...].
        steps: n, number of steps of the element's tensor, with this one.
        own_steps: c, in how many of them the element had a gradient.
        weight: w, `sparsity` of the tensor.
        limit: largest factor.
    """
    ratio = steps / backend.maximum(own_steps, ops.ones_like(own_steps))
    more = weight * backend.maximum(ratio - 1, ops.zeros_like(ratio))
    return u * (1 + backend.minimum(more, (limit - 1) * ops.ones_like(more)))


def wide_share(inputs, wide_inputs: float) -> np.ndarray:
    """min(1, sqrt(W / n)): the steps of a tensor with n inputs, as a share.

    Not in the paper. An output is a sum over inputs: if all elements of a
    kernel move alike, it moves by n times as much. A network's initial weights
    are smaller by the square root of n, so that beyond W inputs steps remain
    the same share of them. The problems of meta-training have at most 256
    inputs, which says nothing about thousands.

    Args:
        inputs: n of each tensor; 1 for those that are no kernels.
        wide_inputs: W; 0 leaves all steps as they are.

    Returns:
        The share of each tensor, of the shape of `inputs`.
    """
    inputs = np.asarray(inputs, "float64")
    if not wide_inputs:
        return np.ones_like(inputs)
    return np.sqrt(wide_inputs / np.maximum(inputs, wide_inputs))


def attended_log_step(eta, offset):
    """Eq. 9: eta_phi = eta_theta + c."""
    return eta + offset


def unscaled_step(d, eta):
    """exp(eta) d, the numerator of Eqs. 5-6 without the learning rate."""
    return ops.exp(eta) * d


def step_scale(sum_of_squares, count, lr):
    """lr / rms(d), which makes Eqs. 5-6 of `unscaled_step`; 0 where d = 0.

    Differs from the paper: as printed (norm / N_t) a step would be larger by
    sqrt(N_t). Only elements that have a gradient count.

    Args:
        sum_of_squares: sum of the squares of d over the tensor.
        count: number of elements that have a gradient.
        lr: learning rate (times the config's `length_unit`).
    """
    rms = safe_sqrt(safe_divide(sum_of_squares, count))
    return safe_divide(lr * ops.ones_like(rms), rms)


def move(theta, delta_theta, delta_phi, decay=1.0):
    """theta <- theta + delta_theta; phi <- old theta + delta_phi (3.2.1).

    Args:
        theta: parameters.
        delta_theta: step of the parameters.
        delta_phi: step to the attended point, or None without attention.
        decay: 1 - weight decay * lr, applied to theta before the step.

    Returns:
        The new theta and phi (the same tensor without attention).
    """
    start = theta * decay
    theta = start + delta_theta
    return theta, theta if delta_phi is None else start + delta_phi
