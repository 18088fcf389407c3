"""Inputs of the Tensor RNN besides means of h and x: alignment and age.

Not in the paper. Where noise dominates, only one thing tells whether steps are
too long: whether this gradient agrees with those before. On average it does
while there is some distance to go, and does not once steps overshoot. Means
over h and x hardly carry this information, since both are signed. Both inputs
are constants to differentiation.
"""

from keras import ops

from hrnn_opt.rule.numerics import safe_divide, safe_sqrt, smallest_normal

OUTLIER = 100.0
"""A gradient or an average counts as at most this many times r: no single
element outweighs its tensor, and no square overflows."""

LIMIT = 10.0
"""Bound of the log ratio."""

AGES = (10.0, 100.0, 1000.0)
"""tau of `age`, in steps."""


def products(g, g_bar, r, moving):
    """Element-wise terms of the sums that `alignment` uses.

    With w = g / r_0 and a_s = g_bar_s / r_0: w^2, the S products w a_s, and
    the S squares a_s^2; 0 where there is no gradient.

    Args:
        g: gradient, [1, ..., n].
        g_bar: averages *before* this step, [S, ..., n].
        r: root mean squares after it, [S, ..., n].
        moving: where there is a gradient, [1, ..., n] of booleans.

    Returns:
        [1 + 2 S, ..., n].
    """
    shortest = ops.stop_gradient(r[:1])
    usable = ops.logical_and(
        moving, shortest >= smallest_normal(shortest.dtype)
    )
    inverse = 1 / ops.where(usable, shortest, ops.ones_like(shortest))
    inverse = ops.where(usable, inverse, ops.zeros_like(inverse))

    def ratio(x):
        return ops.clip(ops.stop_gradient(x) * inverse, -OUTLIER, OUTLIER)

    w, a = ratio(g), ratio(g_bar)
    return ops.concatenate([w * w, w * a, a * a], axis=0)


def alignment(sums, count):
    """How well gradients agree with their averages, at every timescale.

    cos_s = sum w a_s / sqrt(sum w^2 sum a_s^2); asinh(cos_s sqrt(N)) / 2, its
    t-value, squashed; log sqrt(sum a_s^2 / sum w^2). 0 as long as there is no
    average.

    Args:
        sums: sums of `products` over each tensor, [1 + 2 S, T, ...].
        count: N, elements that have a gradient, [1, T, ...].

    Returns:
        [3 S, T, ...].
    """
    scales = (sums.shape[0] - 1) // 2
    gradient, both, average = ops.split(sums, [1, 1 + scales], axis=0)
    sizes = safe_sqrt(gradient) * safe_sqrt(average)
    cosine = safe_divide(both, sizes)
    value = _arcsinh(cosine * ops.sqrt(count)) / 2
    known = ops.logical_and(gradient > 0, average > 0)
    ratio = ops.where(known, average, ops.ones_like(average)) / ops.where(
        known, gradient, ops.ones_like(average)
    )
    ratio = ops.clip(ops.log(ratio) / 2, -LIMIT, LIMIT)
    return ops.stop_gradient(ops.concatenate([cosine, value, ratio], axis=0))


def _arcsinh(x):
    """As `ops.arcsinh`, which not every backend has in the precision of x."""
    size = ops.abs(x)
    return ops.sign(x) * ops.log(size + ops.sqrt(size * size + 1))


def age(steps):
    """1 / (1 + n / tau) for tau = 10, 100, 1000: no horizon is needed.

    Args:
        steps: n, number of earlier steps in which the tensor had a gradient,
            [1, T, ...].

    Returns:
        [3, T, ...].
    """
    return ops.concatenate([1 / (1 + steps / tau) for tau in AGES], axis=0)
