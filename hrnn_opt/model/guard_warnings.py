"""The guard's warnings, from host code."""

import warnings

from hrnn_opt.model import user_line


def warn_of_missing(optimizer):
    """Warns once if nothing tells the guard the loss."""
    if not optimizer.guard or optimizer.guarded_by_callback:
        return
    if not optimizer._told_of_guard:
        optimizer._told_of_guard = True
        warnings.warn(
            "HierarchicalRNN(guard=True) watches its steps alone. To have the "
            "loss watched, pass callbacks=[hrnn_opt.callbacks.Guard(), ...] to "
            "`fit`; a loop of your own that calls `optimizer.watch(loss)` "
            "after each step is all right.",
            stacklevel=user_line.stacklevel(),
        )


def warn_of_rollbacks(optimizer):
    """Warns each time the guard has gone back."""
    rollbacks = optimizer.rollbacks
    if rollbacks > optimizer._told_rollbacks:
        warnings.warn(
            "HierarchicalRNN failed (its steps or its loss ran away, or "
            "gradients were not finite): the guard went back to the last "
            f"good point, {rollbacks} time(s) by now, first after iteration "
            f"{optimizer.first_rollback_at}. All further steps are "
            "RMSProp-like, as long as the last good ones, and ten times "
            "shorter for each further failure.",
            stacklevel=user_line.stacklevel(),
        )
    optimizer._told_rollbacks = rollbacks
