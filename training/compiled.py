"""Functions that are traced once."""

import os
import pathlib

import tensorflow as tf


class Compiled:
    """A function traced, and compiled if asked, at its first call.

    Later calls go to that one program. Arguments of other shapes are refused,
    where `tf.function` would compile anew without a word.

    Args:
        function: of nests of tensors.
        xla: whether XLA compiles it.
    """

    def __init__(self, function, xla: bool = False):
        self._function = tf.function(
            function, jit_compile=xla or None, autograph=False
        )
        self._program = None

    def __call__(self, *args):
        """The function's results."""
        if self._program is None:
            self._program = self._function.get_concrete_function(*args)
        return self._program(*args)


def keep_compilations(folder):
    """XLA's programs are kept in a folder, for the next start.

    To be called before TensorFlow compiles anything. Tracing is not saved,
    compilation is.
    """
    folder = pathlib.Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    flag = f"--tf_xla_persistent_cache_directory={folder}"
    given = os.environ.get("TF_XLA_FLAGS", "")
    if "tf_xla_persistent_cache_directory" not in given:
        os.environ["TF_XLA_FLAGS"] = f"{given} {flag}".strip()
