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

from keras import ops

from hrnn_opt.rule.numerics import safe_divide, safe_sqrt

DECAY = 0.95
"""Decay of the second moments in each step. With 0.995 half of what the bases
are worth is lost."""

PERIOD = 10
"""Steps between two new bases."""

RIDGE = 1e-6
"""Share of the mean eigenvalue that is added to all: a direction in which there
is no gradient stays where it is."""


class Sides(NamedTuple):
    """How a tensor is a matrix, and on which sides it has a basis."""

    rows: int  # m
    columns: int  # n
    left: bool
    right: bool


def sides(shape, limit: float) -> Sides | None:
    """How a tensor of some shape is a matrix.

    The axes are cut in two where the smaller side is largest: a kernel
    [3, 3, 64, 128] is a matrix of 576 rows and 128 columns.

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
    if not cuts:
        return None
    m, n = max(cuts, key=min)
    if min(m, n) < 2 or min(m, n) > limit:
        return None
    return Sides(m, n, m <= limit, n <= limit)


def moments(x, left, right):
    """The second moments after a step: L <- d L + (1 - d) x x^T / |x|^2.

    The same with x^T x for R. Divided by its square norm, each gradient counts
    alike, whatever the scale of the loss. Without a gradient both stay.

    Args:
        x: gradient [m, n], in the model's coordinates.
        left: L [m, m], or None.
        right: R [n, n], or None.
    """
    size = ops.max(ops.abs(x))
    x = safe_divide(x, size)
    x = safe_divide(x, safe_sqrt(ops.sum(x * x)))
    keep = ops.where(size > 0, DECAY * ops.ones_like(size), 1.0)

    def new(old, product):
        return None if old is None else keep * old + (1 - DECAY) * product()

    return (
        new(left, lambda: x @ ops.transpose(x)),
        new(right, lambda: ops.transpose(x) @ x),
    )


def turned(moment, basis):
    """The next basis: one step of an orthogonal iteration.

    The Q of the QR decomposition of M B, every column with the sign that it
    had. Repeated, it tends to the eigenvectors of M.

    Args:
        moment: M [d, d].
        basis: B [d, d].
    """
    if basis is None:
        return None
    d = basis.shape[0]
    ridge = RIDGE / d * ops.trace(moment)
    q, _ = ops.qr(moment @ basis + ridge * basis)
    same = ops.sum(q * basis, axis=0, keepdims=True) >= 0
    return ops.where(same, q, -q)


def into(x, left, right):
    """P^T x Q for matrices x [..., m, n]; None leaves a side as it is."""
    if left is not None:
        x = ops.transpose(left) @ x
    return x if right is None else x @ right


def out_of(x, left, right):
    """P x Q^T, the inverse of `into`."""
    if left is not None:
        x = left @ x
    return x if right is None else x @ ops.transpose(right)


def carried(x, old, new):
    """Averages x [..., m, n] of gradients, from one pair of bases to another.

    Args:
        x: averages in the old bases.
        old: P and Q before, each of which may be None.
        new: P and Q after.
    """
    return into(out_of(x, *old), *new)
