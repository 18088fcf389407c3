"""Operations that are unsafe at zero, made safe once.

Value *and* first and second derivative are finite: the meta-gradient goes
through all of them twice, and a plain `where` around an infinite branch would
make it NaN.
"""

import keras
from keras import ops


def safe_divide(a, b):
    """a / b, and 0 (with zero derivatives) where b = 0."""
    nonzero = ops.not_equal(b, 0)
    quotient = a / ops.where(nonzero, b, ops.ones_like(b))
    return ops.where(nonzero, quotient, ops.zeros_like(quotient))


def safe_sqrt(a):
    """sqrt a, and 0 (with zero derivatives) where a = 0; a >= 0."""
    positive = a > 0
    root = ops.sqrt(ops.where(positive, a, ops.ones_like(a)))
    return ops.where(positive, root, ops.zeros_like(root))


def smallest_normal(dtype) -> float:
    """About the smallest number whose inverse is finite."""
    double = keras.backend.standardize_dtype(dtype) == "float64"
    return 2.3e-308 if double else 1.2e-38


def mean(x, axis: int):
    """The mean over one axis, which stays. Keras's own rounds to float32."""
    return ops.sum(x, axis=axis, keepdims=True) / x.shape[axis]


def linear(kernel, x):
    """W x over a leading feature axis: [o, f] and [f, ...] give [o, ...].

    One matrix product whatever the number of trailing axes, since parameters
    lie contiguously on the last ones. The size of one of these may be unknown.
    """
    shape = x.shape
    y = kernel @ ops.reshape(x, (shape[0], -1))
    rest = (-1 if size is None else size for size in shape[1:])
    return ops.reshape(y, (kernel.shape[0], *rest))


def column(vector, like):
    """A vector [f] as [f, 1, ..., 1], to broadcast against `like` [f, ...].

    With three axes or more the last one, B instances, is already filled in by a
    product with ones: the derivative is then a sum over the middle axes and a
    product, not a sum over the last axis, which XLA adds up one by one.
    """
    column = ops.reshape(vector, (-1,) + (1,) * (len(like.shape) - 1))
    if len(like.shape) < 3:
        return column
    ones = ops.ones((1, like.shape[-1]), vector.dtype)
    filled = ops.reshape(vector, (-1, 1)) @ ones
    return ops.reshape(filled, (*column.shape[:-1], -1))


def select(keep, new, old):
    """`new` where `keep`, else `old`, for matching (nested) tuples of tensors.

    None stays None: a feature that is off.
    """
    if new is None:
        return None
    if not isinstance(new, tuple):
        return ops.where(keep, new, old)
    values = [select(keep, n, o) for n, o in zip(new, old, strict=True)]
    return type(new)(*values) if hasattr(new, "_fields") else tuple(values)
