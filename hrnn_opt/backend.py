"""The few things that differ between Keras's backends."""

import keras

NAME = keras.backend.backend()

if NAME == "tensorflow":
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util
elif NAME == "jax":
    import jax


def compile_function(function):
    """Compiles a pure function of tensors.

    On CPUs Keras does not compile training steps by itself, so on TensorFlow
    the rule does. A JAX user's step is compiled anyway; PyTorch runs eagerly.
    """
    if NAME == "tensorflow":
        return tf.function(function, jit_compile=True, autograph=False)
    return jax.jit(function) if NAME == "jax" else function


def compile_step(function, jit_compile: bool):
    """Makes a training step of a function that assigns variables, as `fit`.

    Other backends than TensorFlow run it as it is.
    """
    if NAME == "tensorflow":
        return tf.function(function, jit_compile=jit_compile, autograph=False)
    return function


def gradient(function, variables):
    """Gradient of a scalar function of the variables; TensorFlow only."""
    with tf.GradientTape() as tape:
        value = function()
    return tape.gradient(value, variables)


def one_program() -> bool:
    """Whether what is being traced ends up in one compiled program."""
    if NAME == "tensorflow":
        if tf.executing_eagerly():
            return False
        return control_flow_util.GraphOrParentsInXlaContext(
            tf.compat.v1.get_default_graph()
        )
    return NAME == "jax"


def run_if(condition, function, variables):
    """Runs `function`, which assigns `variables`, only if `condition` holds.

    JAX has no conditional assignment: there both values are computed.
    """
    if NAME == "tensorflow" and not tf.executing_eagerly():
        tf.cond(condition, lambda: [function(), 0][1], lambda: 0)
    elif NAME != "jax":
        if condition:
            function()
    else:
        old = [variable.value for variable in variables]
        function()
        for variable, value in zip(variables, old, strict=True):
            variable.assign(jax.numpy.where(condition, variable.value, value))


def executing_eagerly() -> bool:
    """Whether values can be read now, in host code."""
    return NAME != "tensorflow" or tf.executing_eagerly()


def read(variable):
    """The value now, as a tensor.

    `ops.convert_to_tensor` gives the variable itself on TensorFlow, whose
    value is another one after the next assignment.
    """
    if NAME == "tensorflow":
        value = getattr(variable, "value", variable)
        return tf.convert_to_tensor(value() if callable(value) else value)
    return keras.ops.convert_to_tensor(variable)


def densify(gradient):
    """An ordinary tensor of a gradient that may be sparse."""
    if NAME == "tensorflow" and isinstance(gradient, tf.IndexedSlices):
        return tf.convert_to_tensor(gradient)
    return gradient


def check_strategy():
    """Refuses a `tf.distribute` strategy over several replicas.

    Raises:
        ValueError: names the strategy.
    """
    if NAME != "tensorflow" or not tf.distribute.has_strategy():
        return
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.OneDeviceStrategy):
        raise ValueError(
            "HierarchicalRNN runs on one device: its Tensor and Global RNN "
            "would see one replica's gradients only. Build it outside the "
            "strategy's scope or use tf.distribute.OneDeviceStrategy. "
            f"Received: strategy={type(strategy).__name__}"
        )
