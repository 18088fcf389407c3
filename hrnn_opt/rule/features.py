"""Inputs of the Parameter RNN: Eqs. 1-4 and eta_rel (sections 3.2.2-3.2.4).

Features lead: g is [1, ..., n]; g_bar, r, m are [S, ..., n].
"""

import numpy as np
from keras import ops

from hrnn_opt import backend
from hrnn_opt.rule.numerics import mean, smallest_normal

LOGIT_RANGE = 60.0
"""sigmoid(-60) = 9e-27: beyond, decays are as good as 0 and lose their
derivatives."""

FADING = 1e-4
"""Share that the largest gradient loses in every step: an outlier is forgotten
after some ten thousand steps."""


def decays(logit, timescales: int):
    """sigmoid(beta)^(2^-s) for s = 0..S-1, used by Eqs. 1 and 2.

    Args:
        logit: beta [1, ..., n], of the shortest timescale.
        timescales: S. Each further timescale is twice as long: a square root.

    Returns:
        [S, ..., n].
    """
    logit = ops.clip(logit, -LOGIT_RANGE, LOGIT_RANGE)
    # As one expression: repeated square roots took XLA a third of the time in
    # which it compiles the whole rule.
    shape = (timescales, *(1,) * (len(logit.shape) - 1))
    powers = ops.cast(0.5 ** np.arange(timescales), logit.dtype)
    return ops.exp(-ops.reshape(powers, shape) * ops.softplus(-logit))


def first_gradient(g, r):
    """Where a timescale sees its first non-zero gradient: r = 0, g != 0."""
    return ops.logical_and(ops.equal(r, 0), ops.not_equal(g, 0))


def gradient_average(g, g_bar, decay, first):
    """Eq. 1: g_bar <- d g_bar + (1 - d) g.

    Differs from the paper: at the first non-zero gradient g_bar is set to g,
    so that m starts at size one.
    """
    return ops.where(first, g, decay * g_bar + (1 - decay) * g)


def root_mean_square(g, g_bar, r, decay, first):
    """Eq. 2 for r = sqrt(lambda): r <- sqrt(d r^2 + (1 - d) g_bar^2).

    Nothing is squared out of range: both are divided by the larger one first,
    whose derivative cancels (r is homogeneous), so it is held constant. An r
    too small for its inverse counts as zero.

    Differs from the paper: `g_bar` is the new average of Eq. 1, and the first
    non-zero gradient sets r to abs(g).
    """
    larger = ops.stop_gradient(backend.maximum(r, ops.abs(g_bar)))
    nonzero = larger >= smallest_normal(larger.dtype)
    scale = 1 / ops.where(nonzero, larger, ops.ones_like(larger))
    old, new = r * scale, g_bar * scale
    square = decay * old * old + (1 - decay) * new * new
    root = ops.sqrt(ops.where(nonzero, square, ops.ones_like(square)))
    root = ops.where(nonzero, larger, ops.zeros_like(larger)) * root
    return ops.where(first, ops.abs(g), root)


def _relative(r):
    """r as a constant (1 where r has no finite inverse), and r / constant - 1.

    The latter is zero and has r's derivatives. Functions of r that are expanded
    in it, to second order, never form the square of 1 / r, which overflows.
    """
    size = ops.stop_gradient(r)
    normal = size >= smallest_normal(r.dtype)
    size = ops.where(normal, size, ops.ones_like(size))
    change = r / size - 1
    return normal, size, ops.where(normal, change, ops.zeros_like(change))


def rescale(g_bar, r):
    """Eq. 3: m = g_bar / sqrt(lambda), and 0 where nothing was seen yet.

    First and second derivatives are exact, higher ones are not.
    """
    normal, size, change = _relative(r)
    m = g_bar / size * (1 - change + change * change)
    return ops.where(normal, m, ops.zeros_like(m))


def relative_log_magnitude(r):
    """Eq. 4: log lambda minus its mean over timescales; 0 where r = 0.

    First and second derivatives are exact, higher ones are not.
    """
    _, size, change = _relative(r)
    log_lam = 2 * (ops.log(size) + change - change * change / 2)
    relative = log_lam - mean(log_lam, axis=0)
    return ops.where(seen(r), relative, ops.zeros_like(relative))


def seen(r):
    """Where every timescale has seen a gradient: [1, ..., n] of booleans."""
    return ops.min(r, axis=0, keepdims=True) > 0


def relative_log_step(eta_bar, mean_eta_bar):
    """eta_rel = eta_bar - its mean over all parameters (section 3.2.4)."""
    return eta_bar - mean_eta_bar


def largest_magnitude(magnitude, largest):
    """The largest mean |g| that a tensor had; constant to differentiation.

    Args:
        magnitude: mean |g| over the tensor now.
        largest: the value after the last step, 0 before the first.
    """
    return ops.stop_gradient(ops.maximum(magnitude, (1 - FADING) * largest))


def without_negligible(g, largest, share: float):
    """g, and 0 where |g| < share * largest.

    Not in the paper. Directions and step lengths do not depend on the scale of
    gradients, so on a problem that is practically solved the rule would go on
    with steps of full length along what is left of the gradients, and the loss
    would rise again. An element whose gradient is 0 stays where it is
    (`elements.sense`). The price: the scale of a single parameter, unlike that
    of a tensor, matters where its gradients are that much smaller than those of
    the others.

    Args:
        g: gradients.
        largest: `largest_magnitude` of their tensor.
        share: share of `largest` below which a gradient counts as 0, in [0, 1).
    """
    kept = ops.abs(g) >= share * largest
    return ops.where(kept, g, ops.zeros_like(g))
