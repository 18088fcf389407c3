"""The few things that differ between Keras's backends."""

import contextlib

import keras

NAME = keras.backend.backend()

if NAME == "tensorflow":
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util, resource_variable_ops
elif NAME == "jax":
    import jax
elif NAME == "torch":
    import torch

COMPILES = NAME != "torch"
"""Whether `compile_function` compiles."""


def compile_function(function):
    """Compiles a pure function of tensors.

    On CPUs Keras does not compile training steps by itself, so on TensorFlow
    the rule does. A JAX user's step is compiled anyway; PyTorch runs eagerly.
    """
    if NAME == "tensorflow":
        return tf.function(function, jit_compile=True, autograph=False)
    return jax.jit(function) if NAME == "jax" else function


def trace_function(function):
    """Traces a pure function of many small operations, without compiling it."""
    if NAME == "tensorflow":
        return tf.function(function, autograph=False)
    return jax.jit(function) if NAME == "jax" else function


@contextlib.contextmanager
def outside():
    """A context in which variables are created at once, outside of any trace.

    TensorFlow traces a function that creates variables a second time, and turns
    each variable's initial value into a conditional of its own.
    """
    if NAME != "tensorflow" or not tf.inside_function():
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(tf.init_scope())
        if not tf.distribute.has_strategy():
            # The function's own way of creating them stays in force otherwise.
            stack.enter_context(tf.variable_creator_scope(_create_variable))
        yield


def _create_variable(next_creator, **kwargs):
    del next_creator
    return resource_variable_ops.default_variable_creator_v2(None, **kwargs)


def untouched(function):
    """Keeps a function out of what rewrites Python code.

    `torch.compile` would need minutes for it: with `jit_compile=True` PyTorch
    then compiles the model around it. TensorFlow's AutoGraph, which converts
    what a `tf.function` calls, would warn of syntax that it does not know.
    """
    if NAME == "tensorflow":
        return tf.autograph.experimental.do_not_convert(function)
    return torch.compiler.disable(function) if NAME == "torch" else function


def compile_step(function, jit_compile: bool):
    """Turns a function that assigns variables into a step, as `fit` does.

    Backends other than TensorFlow run it as it is.
    """
    if NAME == "tensorflow":
        return tf.function(function, jit_compile=jit_compile, autograph=False)
    return function


def gradient(function, variables):
    """Gradient of a scalar function of the variables; TensorFlow only."""
    with tf.GradientTape() as tape:
        value = function()
    return tape.gradient(value, variables)


def executing_eagerly() -> bool:
    """Whether values can be read now, in host code."""
    if NAME == "tensorflow":
        return tf.executing_eagerly()
    # Inside `jax.jit` even a constant is traced.
    return NAME != "jax" or not _traced(jax.numpy.zeros(()))


def one_program() -> bool:
    """Whether the code being traced becomes part of one compiled program."""
    if executing_eagerly():
        return False
    return NAME == "jax" or control_flow_util.GraphOrParentsInXlaContext(
        tf.compat.v1.get_default_graph()
    )


def _traced(value) -> bool:
    return isinstance(value, jax.core.Tracer)


def run_if(condition, function, variables):
    """Runs `function`, which assigns `variables`, only if `condition` holds."""
    if NAME == "tensorflow" and not tf.executing_eagerly():
        tf.cond(condition, lambda: [function(), 0][1], lambda: 0)
    elif NAME == "jax" and _traced(condition):
        _assign_if(condition, function, variables)
    elif condition:
        function()


def _assign_if(condition, function, variables):
    """`run_if` for JAX, where a branch may only return values.

    The branch assigns, returns what it assigned, and leaves the variables as it
    found them. A `where` over all values took three times as long on a CPU.
    """
    old = [variable.value for variable in variables]

    def assign(values):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def branch():
        try:
            function()
            return [variable.value for variable in variables]
        finally:
            assign(old)

    assign(jax.lax.cond(condition, branch, lambda: old))


def read(variable):
    """The current value, as a tensor without derivatives.

    On TensorFlow `ops.convert_to_tensor` returns the variable itself, whose
    value changes with the next assignment.
    """
    if NAME == "tensorflow":
        value = getattr(variable, "value", variable)
        return tf.convert_to_tensor(value() if callable(value) else value)
    value = keras.ops.convert_to_tensor(variable)
    return value.detach() if NAME == "torch" else value


def bitcast(x, dtype: str):
    """Reinterprets the bits of x as another type of the same size."""
    if NAME == "tensorflow":
        return tf.bitcast(x, dtype)
    if NAME == "jax":
        return jax.lax.bitcast_convert_type(x, dtype)
    return x.view(getattr(torch, dtype))


def columns(x, numbers):
    """x[..., numbers], for an array of numbers none of which is negative.

    Keras's `take` spends most of its time on negative ones.
    """
    if NAME == "tensorflow":
        return tf.gather(x, numbers, axis=-1)
    return keras.ops.take(x, numbers, axis=-1)


def has_value(variable) -> bool:
    """False after an error in `fit` on JAX, whose trainer moves values out."""
    return NAME != "jax" or variable._value is not None


# Keras's type promotion supports 64 bits on TensorFlow only: elsewhere many of
# its functions round to float32. Operators (`@`, `/`) do not.


def tanh(x):
    """tanh x in the precision of x."""
    return jax.numpy.tanh(x) if NAME == "jax" else keras.ops.tanh(x)


def maximum(a, b):
    """The larger of each pair, in the precision of a and b."""
    return torch.maximum(a, b) if NAME == "torch" else keras.ops.maximum(a, b)


def minimum(a, b):
    """The smaller of each pair, in the precision of a and b."""
    return torch.minimum(a, b) if NAME == "torch" else keras.ops.minimum(a, b)


def segment_sum(rows, owner, count: int):
    """Sums the rows [R, ...] of each owner, [count, ...], in their precision.

    Args:
        rows: a tensor.
        owner: numbers from 0 to count - 1, a NumPy array [R].
        count: number of owners.
    """
    if NAME != "torch":
        return keras.ops.segment_sum(rows, owner, count)
    sums = rows.new_zeros((count, *rows.shape[1:]))
    owner = torch.as_tensor(owner, device=rows.device)
    return sums.index_add_(0, owner, rows)


def is_sparse(gradient) -> bool:
    """Whether a gradient covers some rows only (`IndexedSlices`)."""
    return NAME == "tensorflow" and isinstance(gradient, tf.IndexedSlices)


def unique_rows(gradient):
    """Sums the slices of a sparse gradient by row; TensorFlow only.

    The rows are sorted by id, and filled up with zeros to the number of
    indices. Slices of the same row are added in order, as `densify` does.

    Args:
        gradient: `IndexedSlices` of k rows [k, width].

    Returns:
        Rows [k, width], their ids [k], and how many of them are real.
    """
    ids = tf.reshape(gradient.indices, (-1,))
    count = ids.shape[0] or tf.shape(ids)[0]
    order = tf.argsort(ids, stable=True)
    ordered = tf.gather(ids, order)
    starts = tf.cast(ordered[1:] != ordered[:-1], "int32")
    number = tf.cumsum(tf.concat([[0], starts], 0))
    owner = tf.scatter_nd(order[:, None], number, tf.shape(ids))
    rows = tf.math.unsorted_segment_sum(gradient.values, owner, count)
    ids = tf.math.unsorted_segment_max(ids, owner, count)
    return rows, ids, number[-1] + 1


def gather_rows(variable, ids):
    """Some rows of a variable, without reading all; TensorFlow only."""
    return tf.gather(_tensorflow_variable(variable), ids)


def scatter_rows(variable, ids, rows):
    """Assigns some rows of a variable in place; TensorFlow only."""
    slices = tf.IndexedSlices(rows, ids)
    _tensorflow_variable(variable).scatter_update(slices)


def _tensorflow_variable(variable):
    return variable if isinstance(variable, tf.Variable) else variable.value


def densify(gradient):
    """The dense tensor of a gradient that may be sparse."""
    if NAME == "tensorflow" and isinstance(gradient, tf.IndexedSlices):
        return tf.convert_to_tensor(gradient)
    return gradient


def check_float64(dtype: str):
    """Refuses float64 where JAX would compute in float32.

    Raises:
        ValueError: JAX is not set up for float64.
    """
    if (dtype, NAME) == ("float64", "jax") and not jax.config.jax_enable_x64:
        raise ValueError(
            "HierarchicalRNN needs jax.config.update('jax_enable_x64', True) "
            "for variables of float64: JAX rounds them to float32 otherwise. "
            "Received: jax_enable_x64=False"
        )
