"""Training on one device, several devices or several machines, by one loop.

    strategy = replicas.make_strategy("auto")
    with strategy.scope():
        model, optimizer = ...
    loop = replicas.Loop(strategy, model, optimizer, loss, metrics)
    batches = iter(replicas.distribute(strategy, examples, batch_size=256))
    logs = loop.train(batches, steps=100)

The steps do not depend on the strategy: one device with the same global batch
takes the same ones. On several machines, each runs the same program with its
own `TF_CONFIG`, and all call the same methods in the same order.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator

import keras
import tensorflow as tf

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Makes a strategy; to be called at the start of a program.

    Args:
        name: "one_device"; "mirrored": all GPUs of this machine, or all its
            logical CPUs; "multi_worker": the machines that `TF_CONFIG` names;
            "auto": the last one that applies.

    Raises:
        ValueError: another name, or "multi_worker" without `TF_CONFIG`.
    """
    workers = _check(name)
    if name == "multi_worker" or (name == "auto" and workers > 1):
        # With few cores there are few threads by default, and all of them may
        # block, waiting for other workers for ever.
        if tf.config.threading.get_inter_op_parallelism_threads() == 0:
            tf.config.threading.set_inter_op_parallelism_threads(
                max(os.cpu_count() or 1, workers + 2)
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy([d.name for d in devices])
    return tf.distribute.OneDeviceStrategy(devices[0].name)


def count(name: str = "auto") -> int:
    """How many replicas `make_strategy` would give, without waiting for any.

    Other machines are assumed to have as many GPUs as this one.

    Raises:
        ValueError: as `make_strategy`.
    """
    workers = _check(name)
    gpus = len(tf.config.list_logical_devices("GPU"))
    if name == "multi_worker" or (name == "auto" and workers > 1):
        return workers * max(gpus, 1)
    if name == "mirrored":
        return gpus or len(tf.config.list_logical_devices("CPU"))
    return max(gpus, 1) if name == "auto" else 1


def _check(name: str) -> int:
    """The number of workers; refuses a strategy that is not available."""
    if name not in STRATEGIES:
        raise ValueError(
            f"Argument `name` must be one of {STRATEGIES}. Received: "
            f"name={name!r}"
        )
    workers = _workers()
    if name == "multi_worker" and not workers:
        raise ValueError(
            "Argument `name` can be 'multi_worker' only where the environment "
            "variable TF_CONFIG names the workers. Received: TF_CONFIG="
            f"{os.environ.get('TF_CONFIG')!r}"
        )
    return workers


def _workers() -> int:
    """How many workers `TF_CONFIG` names."""
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    return sum(len(cluster.get(job, ())) for job in ("chief", "worker"))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec().as_dict():
        return True
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (first, 0)


def distribute(
    strategy: tf.distribute.Strategy,
    examples: tf.data.Dataset | Callable,
    batch_size: int,
    drop_remainder: bool = True,
) -> Iterable:
    """Batches for all replicas.

    Args:
        strategy: strategy of the replicas.
        examples: a data set of single examples, the same on every machine, of
            which each takes every n-th; or a function of a
            `tf.distribute.InputContext` that returns this machine's own
            examples, if reading those of the others would cost too much.
        batch_size: size of the global batch, over all replicas.
        drop_remainder: whether to leave out a last, smaller batch.

    Raises:
        ValueError: the replicas cannot share a batch evenly.
    """
    check_batch_size(strategy, batch_size)

    def batches(context):
        if callable(examples):
            own = examples(context)
        else:
            own = examples.shard(
                context.num_input_pipelines, context.input_pipeline_id
            )
        size = context.get_per_replica_batch_size(batch_size)
        own = own.batch(size, drop_remainder=drop_remainder)
        return own.prefetch(tf.data.AUTOTUNE)

    return strategy.distribute_datasets_from_function(batches)


def check_batch_size(strategy: tf.distribute.Strategy, batch_size: int):
    """Checks that the replicas can share a batch evenly.

    Raises:
        ValueError: they cannot.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size < 1 or batch_size % replicas:
        raise ValueError(
            f"Argument `batch_size` must be a multiple of {replicas}, the "
            f"number of replicas. Received: batch_size={batch_size}"
        )


class Loop:
    """Trains and evaluates a model under a strategy.

    The gradient is that of the mean loss over the global batch (also for a
    last, smaller batch). Keras's `fit` does the same where it works.

    Args:
        strategy: made by `make_strategy`, or any that the optimizer takes.
        model: made in the strategy's scope, with one output.
        optimizer: likewise; `HierarchicalRNN`, any other Keras optimizer, or a
            `LossScaleOptimizer` around it.
        loss: function of labels and predictions (in float32) that returns a
            loss for each example, such as
            `keras.losses.sparse_categorical_crossentropy`.
        metrics: Keras metrics of labels and predictions, made in the scope.
    """

    def __init__(self, strategy, model, optimizer, loss, metrics=()):
        self.strategy, self.model, self.optimizer = strategy, model, optimizer
        self._loss = loss
        with strategy.scope():
            if not optimizer.built:
                optimizer.build(model.trainable_variables)
            self._mean_loss = keras.metrics.Mean(name="loss")
        self._metrics = [self._mean_loss, *metrics]
        self._learned = getattr(optimizer, "inner_optimizer", optimizer)
        self._train = tf.function(self._on_replicas(self.train_step))
        self._evaluate = tf.function(self._on_replicas(self.evaluate_step))

    def train(self, batches: Iterator, steps: int) -> dict[str, float]:
        """Takes a number of steps.

        Args:
            batches: an iterator over `distribute`'s batches.
            steps: number of steps.

        Returns:
            The mean loss and the metrics over these steps.

        Raises:
            StopIteration: the batches are used up.
        """
        for _ in range(steps):
            self._train(next(batches))
        return self._results()

    def evaluate(self, batches: Iterable) -> dict[str, float]:
        """Loss and metrics over all batches, with attention at theta."""
        with self.at_theta():
            for batch in batches:
                self._evaluate(batch)
        return self._results()

    def at_theta(self):
        """`with loop.at_theta():` to evaluate or save the parameters."""
        if hasattr(self._learned, "at_theta"):
            return self._learned.at_theta()
        return contextlib.nullcontext()

    def train_step(self, x, y):
        """One replica's part of a step."""
        replica = tf.distribute.get_replica_context()
        count = replica.all_reduce(
            tf.distribute.ReduceOp.SUM, tf.cast(tf.shape(y)[0], "float32")
        )
        with tf.GradientTape() as tape:
            losses, prediction = self._losses(x, y, training=True)
            penalty = self._penalty()
            # Summed over replicas: the mean loss, and the penalty once.
            loss = tf.reduce_sum(losses) / count
            loss += penalty / replica.num_replicas_in_sync
            loss = self.optimizer.scale_loss(loss)
        grads = tape.gradient(loss, self.model.trainable_variables)
        if self._learned is not self.optimizer:
            grads = _share_overflow(replica, grads)
        self.optimizer.apply(grads, self.model.trainable_variables)
        self._update(losses + penalty, y, prediction)

    def evaluate_step(self, x, y):
        """One replica's part of an evaluation."""
        losses, prediction = self._losses(x, y, training=False)
        self._update(losses + self._penalty(), y, prediction)

    def _losses(self, x, y, training):
        """The loss of each example [batch], and the predictions."""
        prediction = tf.cast(self.model(x, training=training), "float32")
        losses = self._loss(y, prediction)
        axes = range(1, losses.shape.rank)
        return tf.reduce_mean(losses, list(axes)), prediction

    def _penalty(self):
        """What regularizers add to the loss."""
        return sum(tf.cast(loss, "float32") for loss in self.model.losses)

    def _update(self, losses, y, prediction):
        self._mean_loss.update_state(losses)
        for metric in self._metrics[1:]:
            metric.update_state(y, prediction)

    def _results(self):
        results = {m.name: float(m.result()) for m in self._metrics}
        for metric in self._metrics:
            metric.reset_state()
        return results

    def _on_replicas(self, step):
        return lambda batch: self.strategy.run(step, args=batch)


def _share_overflow(replica, grads: list) -> list:
    """Gradients that are finite on all replicas, or on none.

    Keras's `LossScaleOptimizer` looks at the first replica's gradients of each
    machine. If machines disagreed on whether to take the step, one would
    wait for the other for ever.
    """
    grads = [None if g is None else tf.convert_to_tensor(g) for g in grads]
    first = next(k for k, g in enumerate(grads) if g is not None)
    finite = [
        tf.reduce_all(tf.math.is_finite(g)) for g in grads if g is not None
    ]
    overflows = replica.all_reduce(
        tf.distribute.ReduceOp.SUM,
        1.0 - tf.cast(tf.reduce_all(finite), "float32"),
    )
    poison = tf.where(overflows > 0, float("nan"), 0.0)
    grads[first] += tf.cast(poison, grads[first].dtype)
    return grads
