"""The basis in which the rule sees the gradient of a matrix.

Not in the paper. All equations of the rule act on each parameter alone, in the
coordinates that the model happens to have. In most layers inputs and outputs
are correlated, so that nearly all of a gradient lies in a few directions, and a
step that is as long for every parameter hardly moves along the others. In the
eigenvectors of the gradients' second moments these directions are parameters
of their own, each with its own scale, memory and step length. Shampoo (Gupta et
al., 2018) divides by the eigenvalues; SOAP (Vyas et al., 2024) runs Adam there;
here the hierarchical RNN runs there, as it is.

A tensor is a matrix x [m, n], cut where it is closest to square. Its left basis
P [m, m] and right basis Q [n, n] are orthogonal. The rule is given P^T g Q, and
a step s of it is applied as P s Q^T. Averages of gradients are carried over to
a new basis; what else the rule remembers stays with the parameter of the same
number, whose direction turns little.
"""

import math
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from hrnn_opt.rule.numerics import safe_divide, safe_sqrt

DECAY = 0.95
"""Decay of the second moments in each step; 0.98 is worse, 0.9 as good."""

PERIOD = 10
"""Steps with a gradient after which a tensor gets new bases."""

GROWING = 0.2
"""Log step lengths that are that far above their average over log time grow."""

RIDGE = 1e-6
"""Share of the mean eigenvalue that is added to all: directions in which there
is no gradient stay where they are, except for what rounding does (in float32
they turn among themselves, where nothing moves)."""


class Sides(NamedTuple):
    """How a tensor is a matrix, and on which sides it has a basis."""

    rows: int  # m
    columns: int  # n
    left: bool
    right: bool


def sides(shape, limit: float) -> Sides | None:
    """How a tensor of some shape is a matrix.

    The axes are cut in two where the smaller side is largest, but not above the
    limit: a kernel [3, 3, 64, 128] is a matrix of 576 rows and 128 columns.

    Args:
        shape: shape of the tensor.
        limit: the longest side that has a basis.

    Returns:
        None if no side has one: both are too long, or there is one row or
        column only, whose parameters are scaled one by one as well.
    """
    cuts = [
        (math.prod(shape[:k]), math.prod(shape[k:]))
        for k in range(1, len(shape))
    ]
    cuts = [cut for cut in cuts if 2 <= min(cut) <= limit]
    if not cuts:
        return None
    m, n = max(cuts, key=min)
    return Sides(m, n, m <= limit, n <= limit)


def sides_of_all(shapes, limit: float) -> list:
    """`sides` of each tensor of a model, in its order; None without a limit.

    The last matrix has no basis. In most models it is the kernel of the output
    layer, whose columns stand for something each, classes for example: with a
    basis its steps were so short that a text classifier of 60 classes was
    behind by half.
    """
    last = max((t for t, s in enumerate(shapes) if len(s) > 1), default=0)
    return [
        sides(tuple(shape), limit) if limit and t != last else None
        for t, shape in enumerate(shapes)
    ]


def moments(x, left, right):
    """The second moments after a step: L <- d L + (1 - d) x x^T / |x|^2.

    The same with x^T x for R. Divided by its square norm, each gradient counts
    alike, whatever the scale of the loss. Without a gradient both stay.

    Args:
        x: gradients [..., m, n], in the model's coordinates.
        left: L [..., m, m], or None.
        right: R [..., n, n], or None.
    """
    size = _largest(x)
    x = safe_divide(x, size)
    norm = safe_sqrt(ops.sum(x * x, axis=(-2, -1), keepdims=True))
    x = safe_divide(x, norm)
    keep = ops.where(size > 0, DECAY * ops.ones_like(size), 1.0)

    def new(old, product):
        return None if old is None else keep * old + (1 - DECAY) * product()

    return (
        new(left, lambda: x @ _transposed(x)),
        new(right, lambda: _transposed(x) @ x),
    )


def due(since, growth, log_length, limit: float):
    """Whether all tensors get new bases: where one has waited long enough.

    But not while steps are short and grow. From a first step that is too short
    by orders of magnitude they grow fast in the coordinates of the model, where
    most gradients agree. In eigenbases most parameters hold noise, for which
    the RNN shortens steps: on a table of categories they grew tenfold in 600
    steps there, and a thousandfold in 150 without bases.

    Args:
        since: gradients since the last turn, of each matrix, [K, ...].
        growth: log step lengths of the matrices less their averages over log
            time (see `step_length.average_over_log_time`), [K, ...].
        log_length: the log of the learning rate times the factor by which step
            lengths have grown since the first step, which was as long as the
            learning rate: log lr + eta_bar, [K, ...].
        limit: a mean length above which bases turn anyway; 0 turns them always.
            All means are over matrices, whatever their sizes.

    Returns:
        Booleans [...].
    """
    found = ops.any(since >= PERIOD, axis=0)
    if not limit:
        return found
    waits = ops.logical_and(
        ops.mean(growth, axis=0) > GROWING,
        ops.mean(log_length, axis=0) < math.log(limit),
    )
    return ops.logical_and(found, ops.logical_not(waits))


def turned(moment, basis):
    """The next basis: one step of an orthogonal iteration.

    The Q of the QR decomposition of M B, every column with the sign that it
    had. Repeated, it tends to the eigenvectors of M.

    Args:
        moment: M [..., d, d].
        basis: B [..., d, d]; None is returned as it is.
    """
    if basis is None:
        return None
    d = basis.shape[-1]
    one = ops.eye(d, dtype=moment.dtype)
    trace = ops.sum(moment * one, axis=(-2, -1), keepdims=True)
    q, _ = ops.qr(moment @ basis + RIDGE / d * trace * basis)
    same = ops.sum(q * basis, axis=-2, keepdims=True) >= 0
    return ops.where(same, q, -q)


def in_range(x):
    """Gradients [..., m, n], shortened if their products could overflow."""
    size = _largest(x)
    largest = np.finfo(keras.backend.standardize_dtype(x.dtype)).max
    limit = largest / math.prod(x.shape[-2:])
    return ops.where(size > limit, x * safe_divide(limit, size), x)


def into(x, left, right):
    """P^T x Q for matrices x [..., m, n]; None leaves a side as it is."""
    if left is not None:
        x = _transposed(left) @ x
    return x if right is None else x @ right


def out_of(x, left, right):
    """P x Q^T, the inverse of `into`."""
    if left is not None:
        x = left @ x
    return x if right is None else x @ _transposed(right)


def carried(x, old, new):
    """Averages x [..., m, n] of gradients, from one pair of bases to another.

    Args:
        x: averages in the old bases.
        old: P and Q before, each of which may be None.
        new: P and Q after.
    """
    return into(out_of(x, *old), *new)


def _largest(x):
    """The largest magnitude of each matrix, [..., 1, 1]."""
    return ops.max(ops.abs(x), axis=(-2, -1), keepdims=True)


def _transposed(x):
    return ops.swapaxes(x, -2, -1)
