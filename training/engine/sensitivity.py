"""How much the rest of an unroll depends on one step; this is clipped.

Meta-gradients of long trajectories explode, most of all where one has
converged: m = g_bar / r has the derivative 1 / r. Derivatives with respect to
parameters cannot be compared between problems of different scales; these
numbers can.
"""

import tensorflow as tf

ROUNDING = 1.2e-7
"""Relative precision of float32: smaller changes of a number may be lost."""


def sensitivity(rule, old, new, cotangent):
    """The dimensionless norm of a cotangent, [B].

    In the rule's memory the norm is taken as it is; in theta and in phi it is
    multiplied by the norm of their step. A step lost in rounding, whose
    derivative is as if it had been made, counts as one rounding error.

    Args:
        rule: see `training.rules.base`.
        old: state before the step.
        new: state after it.
        cotangent: cotangent of the state after it.
    """
    memory = tf.nest.flatten(rule.memory(cotangent))
    total = sum(_square(leaf) for leaf in memory)
    for view in (rule.point, rule.attended):
        bar, before, after = view(cotangent), view(old), view(new)
        step = tf.maximum(tf.abs(after - before), ROUNDING * tf.abs(after))
        total += _square(tf.transpose(bar)) * _square(tf.transpose(step))
    return tf.sqrt(total)


def _square(x):
    """Sums of squares over all but the last axis, that of instances: [B]."""
    return tf.reduce_sum(x**2, axis=tuple(range(len(x.shape) - 1)))
