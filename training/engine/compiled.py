"""Functions that are traced once."""

import tensorflow as tf


def keep_graphs_as_traced():
    """Makes TensorFlow run this process's graphs without rewriting them.

    For programs whose work is in functions that XLA compiles and optimizes
    itself: rewriting goes through their bodies, too, takes 2 s of processor
    time a row at every start, and gains nothing.
    """
    tf.config.optimizer.set_experimental_options(
        {"disable_meta_optimizer": True}
    )


class Compiled:
    """A function that is traced, and optionally compiled, at its first call.

    The name of a program in XLA's cache ends in a counter of the process that
    every trace and every eager tensor increments. To find its compilations
    again, a program therefore traces first, in a fixed order and in one thread,
    and computes afterwards.

    Later calls run that one program. Arguments of other shapes are refused,
    where `tf.function` would silently compile anew.

    Args:
        function: a function of nests of tensors.
        xla: whether XLA compiles it.
    """

    def __init__(self, function, xla: bool = False):
        self._function = tf.function(
            function, jit_compile=xla or None, autograph=False
        )
        self._program = None

    def trace(self, *args):
        """Traces the function if it has not been traced; computes nothing.

        Args:
            args: the function's arguments, or `tf.TensorSpec`s for them.

        Returns:
            The specifications of the results, a nest of `tf.TensorSpec`s.
        """
        if self._program is None:
            self._program = self._function.get_concrete_function(*args)
        return tf.nest.map_structure(
            lambda x: tf.TensorSpec(x.shape, x.dtype),
            self._program.structured_outputs,
        )

    def __call__(self, *args):
        """The function's results."""
        if self._program is None:
            self.trace(*args)
        return self._program(*args)
