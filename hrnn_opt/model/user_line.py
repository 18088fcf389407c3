"""Where a warning points: at the user's line."""

import sys

_OURS = {"hrnn_opt", "keras", "tensorflow", "jax", "torch"}


def stacklevel() -> int:
    """`stacklevel` of `warnings.warn` in the function that calls this one.

    The first frame above it that is neither ours nor a framework's, nor what
    TensorFlow generated of one.
    """
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None:
        name = frame.f_globals.get("__name__", "").split(".")[0]
        if name not in _OURS and not name.startswith("__autograph"):
            break
        frame, level = frame.f_back, level + 1
    return level
