"""What is above us on the call stack: the user's line, and Keras's `fit`."""

import sys

_OURS = {"hrnn_opt", "keras", "tensorflow", "jax", "torch"}


def stacklevel() -> int:
    """`stacklevel` of `warnings.warn` in the function that calls this one.

    It points to the first frame above that is neither ours nor a framework's,
    nor code that TensorFlow generated from one (or from the user's).
    """
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None:
        name = frame.f_globals.get("__name__", "").split(".")[0]
        file = frame.f_code.co_filename
        if name not in _OURS and "__autograph_generated" not in file:
            break
        frame, level = frame.f_back, level + 1
    return level


def evaluates() -> bool:
    """Whether the caller may go on to evaluate the model's variables.

    A `fit` with validation data does, and a custom loop may. Keras tells an
    optimizer nothing about either.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "fit":
            own = frame.f_locals
            if "validation_data" in own:
                return own["validation_data"] is not None
        frame = frame.f_back
    return True
