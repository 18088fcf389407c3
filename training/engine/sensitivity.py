"""How much what is to come depends on one step: what is clipped.

Meta-gradients of long trajectories explode, most of all where one has
converged: m = g_bar / r has the derivative 1 / r. Derivatives in parameters
cannot be compared between problems of different scales, these numbers can.
"""

import tensorflow as tf

ROUNDING = 1.2e-7
"""Precision of float32: a smaller change of a number may be lost."""


def sensitivity(rule, old, new, cotangent):
    """The norm of a cotangent in numbers without a unit, [B].

    In the rule's memory it is taken as it is; in theta and in phi its norm is
    multiplied by the norm of their step. A step lost in rounding, whose
    derivative is as if it had been made, counts as one rounding.

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
