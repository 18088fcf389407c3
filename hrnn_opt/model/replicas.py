"""Several replicas of a model, as `tf.distribute` has them.

Gradients are summed over the replicas first, before clipping and before the
test for NaN; then every replica makes the same whole step on its own copies of
the variables. So all copies stay equal, all replicas skip the same steps, and a
step waits for other replicas only in that one sum. (Keras sums after clipping,
and updates in a `merge_call`, which cannot be conditional.)
"""

from hrnn_opt import backend

if backend.NAME == "tensorflow":
    import tensorflow as tf

    WELCOME = (
        tf.distribute.OneDeviceStrategy,
        tf.distribute.MirroredStrategy,
        tf.distribute.MultiWorkerMirroredStrategy,
    )


def in_strategy() -> bool:
    """Whether a `tf.distribute` strategy is in scope."""
    return backend.NAME == "tensorflow" and tf.distribute.has_strategy()


def check_strategy(optimizer, variables):
    """Checks that an optimizer can be built here for these model variables.

    Raises:
        ValueError: the strategy, or an argument under it, is not supported; the
            message says what to do instead.
    """
    if backend.NAME != "tensorflow" or not tf.distribute.has_strategy():
        return
    strategy = tf.distribute.get_strategy()
    name = type(strategy).__name__
    if not isinstance(strategy, WELCOME):
        raise ValueError(
            "HierarchicalRNN needs the gradients of all replicas in every "
            "step, and its state beside each copy of the model. Use "
            "tf.distribute.MirroredStrategy, MultiWorkerMirroredStrategy or "
            f"OneDeviceStrategy. Received: strategy={name}"
        )
    if isinstance(strategy, tf.distribute.OneDeviceStrategy):
        return
    steps = optimizer.gradient_accumulation_steps
    if steps:
        raise ValueError(
            "Argument `gradient_accumulation_steps` does not work under "
            f"{name} (nor for Keras's own optimizers). Use larger batches, "
            "more replicas, or one device. Received: "
            f"gradient_accumulation_steps={steps}"
        )
    if strategy.num_replicas_in_sync > 1:
        if not (
            tf.distribute.in_cross_replica_context() or tf.executing_eagerly()
        ):
            raise ValueError(
                "HierarchicalRNN must be built before the first step: `with "
                "strategy.scope(): optimizer.build(model.trainable_variables)`"
                f". Received: a first call of `apply` inside `{name}.run`"
            )
        _check_mirrored([*optimizer._variables, *variables], name)


def sum_gradients(optimizer, grads: list) -> list:
    """The gradients of the whole batch: summed over all replicas.

    As in Keras, the loss of each replica is divided by the size of the global
    batch, so it is a sum and not a mean.

    Args:
        optimizer: the optimizer that takes the step.
        grads: dense gradients of this replica.

    Raises:
        ValueError: it is called outside `strategy.run` or inside a program that
            is compiled as a whole, or the optimizer was made outside the scope.
    """
    if backend.NAME != "tensorflow":
        return grads
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return grads
    name = type(strategy).__name__
    replica = tf.distribute.get_replica_context()
    if replica is None:
        raise ValueError(
            "HierarchicalRNN takes a step inside `strategy.run`, where each "
            "replica has its own gradients. Received: a call of `apply` in "
            f"the cross-replica context of {name}"
        )
    if backend.one_program():
        raise ValueError(
            f"Argument `jit_compile` must be off under {name}: TensorFlow "
            "cannot compile a step of several replicas as a whole. "
            "HierarchicalRNN compiles its own update in any case. Received: "
            "jit_compile=True"
        )
    _check_mirrored(optimizer._variables, name)
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, grads)


def own_copy(variable):
    """This replica's copy of a variable; with one replica, the variable.

    A mirrored variable with an `aggregation` would wait for the other replicas
    at every assignment, and fail where the assignment is conditional.
    """
    if backend.NAME != "tensorflow":
        return variable
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return variable
    mirrored = _tensorflow_variable(variable)
    copies = replica.strategy.experimental_local_results(mirrored)
    number = tf.get_static_value(replica.replica_id_in_sync_group)
    return copies[number % len(copies)]


def _check_mirrored(variables, name):
    """Checks that every replica has its own copy of all variables."""
    for variable in variables:
        if not isinstance(
            _tensorflow_variable(variable), tf.distribute.DistributedValues
        ):
            raise ValueError(
                "The model and HierarchicalRNN must be made, and the optimizer "
                "built, in the strategy's scope: `with strategy.scope():` "
                "around their constructors and `model.compile`. Received: "
                f"{variable.name}, one variable for all replicas of {name}"
            )


def _tensorflow_variable(variable):
    return variable if isinstance(variable, tf.Variable) else variable.value
