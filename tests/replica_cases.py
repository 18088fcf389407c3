"""The optimizer under `MirroredStrategy`, on two logical devices of one CPU.

Logical devices must be set up before TensorFlow starts, and would change the
process of the other tests, so `test_replicas.py` runs this file in a separate
one. To run it alone: `pytest tests/replica_cases.py`.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN
from hrnn_opt.callbacks import AttentionSwap
from tests import replica_worker
from tests.reference_pair import (
    NUMBERS,
    draw_gradients,
    new_variables,
    weights_file,
)
from tests.worker_processes import free_port
from training import replicas
from training.imagenet.files import Checkpoints

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)


# One strategy for all tests: collectives of a second one would collide with
# those of the first in the same process, and TensorFlow aborts them.
MIRRORED = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def mirrored():
    return MIRRORED


def one_device():
    return tf.distribute.OneDeviceStrategy("CPU:0")


def copies(variable):
    """The arrays on all devices."""
    value = getattr(variable, "value", variable)
    values = getattr(value, "values", [variable])
    return [copy.numpy() for copy in values]


def same(one, several, tolerance=1e-5):
    """Every copy of every variable equals that of one device."""
    assert len(one) == len(several)
    for wanted, variable in zip(one, several, strict=True):
        assert len(copies(variable)) == 2
        for copy in copies(variable):
            np.testing.assert_allclose(
                copy,
                wanted.numpy(),
                tolerance,
                tolerance,
                err_msg=wanted.path,
            )


# Gradients are given: one device gets the sum of the replicas' gradients.


class Side:
    """Variables and their optimizer under one strategy."""

    def __init__(self, strategy, path, **kwargs):
        self.strategy = strategy
        with strategy.scope():
            self.variables = new_variables()
            self.optimizer = HierarchicalRNN(0.125, weights=path, **kwargs)
            self.optimizer.swapped_by_callback = True
            self.optimizer.build(self.variables)
        self._graph = tf.function(self._on_replicas, autograph=False)

    def _on_replicas(self, gradients):
        def step(gradients):
            self.optimizer.apply(gradients, self.variables)

        self.strategy.run(step, args=(gradients,))

    def step(self, gradients):
        """One step; `gradients` has a list of arrays for each replica."""

        def own(context):
            own = gradients[context.replica_id_in_sync_group]
            return [None if g is None else tf.constant(g) for g in own]

        distribute = self.strategy.experimental_distribute_values_from_function
        self._graph(distribute(own))

    @property
    def all(self):
        return [*self.variables, *self.optimizer.variables]


def both(path, all_gradients, **kwargs):
    """Both sides after these steps."""
    one = Side(one_device(), path, **kwargs)
    two = Side(mirrored(), path, **kwargs)
    for first, second in all_gradients:
        total = [
            None if a is None else a + b
            for a, b in zip(first, second, strict=True)
        ]
        one.step([total])
        two.step([first, second])
    return one, two


def replica_gradients(steps):
    """Gradients whose sizes differ between replicas, so that clipping shows."""
    first, second = draw_gradients(steps, 2), draw_gradients(steps, 3)
    second = [[5 * g for g in gradients] for gradients in second]
    return list(zip(first, second, strict=True))


def test_a_state_in_bfloat16_rounds_alike_on_all_replicas(tmp_path):
    path = weights_file(tmp_path)
    one, two = both(path, replica_gradients(8), state_dtype="bfloat16")
    same(one.variables, two.variables)
    kept = [v for v in two.optimizer.variables if v.dtype == "bfloat16"]
    assert len(kept) == 8
    for variable in kept:
        first, second = copies(variable)
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"clipnorm": 0.5},
        {"clipvalue": 0.2, "weight_decay": 0.1},
        {"global_clipnorm": 0.5, "use_ema": True, "ema_momentum": 0.5},
        {
            "loss_scale_factor": 128.0,
            "use_ema": True,
            "ema_momentum": 0.5,
            "ema_overwrite_frequency": 2,
        },
    ],
    ids=lambda kwargs: "-".join(kwargs) or "plain",
)
def test_two_replicas_step_as_one_device_with_their_sum(tmp_path, kwargs):
    path = weights_file(tmp_path)
    one, two = both(path, replica_gradients(5), **kwargs)
    same(one.all, two.all, 1e-9)
    assert int(one.optimizer.iterations.numpy()) == 5


def test_eigenbases_turn_as_on_one_device(tmp_path):
    path = weights_file(tmp_path, attention=False, eigenbasis=50.0)
    one, two = both(path, replica_gradients(12))
    same(one.all, two.all, 1e-9)
    turned = [v for v in one.all if "basis_" in v.path]
    assert len(turned) == 2
    for variable in turned:
        assert not np.allclose(variable, np.eye(variable.shape[0]), atol=1e-3)


def test_one_replicas_bad_gradient_skips_the_step_of_all(tmp_path):
    two = Side(mirrored(), weights_file(tmp_path))
    bad = [(v, r) for v in (np.nan, np.inf) for r in (0, 1)]
    gradients = replica_gradients(1 + 2 * len(bad))
    two.step(gradients[0])
    for skipped, (value, replica) in enumerate(bad, 1):
        wrong, right = gradients[2 * skipped - 1 : 2 * skipped + 1]
        before = [copies(v) for v in two.all]
        wrong[replica][2][1, 1] = value
        two.step(wrong)
        after = [copies(v) for v in two.all]
        changed = [
            v.name
            for v, a, b in zip(two.all, before, after, strict=True)
            if not np.array_equal(a, b)
        ]
        assert sorted(changed) == ["iteration", "skipped_steps"]
        assert two.optimizer.skipped_steps == skipped
        assert copies(two.optimizer._slots.skipped) == [skipped] * 2
        two.step(right)
        assert two.optimizer.skipped_steps == skipped


def test_a_tensor_without_gradient_stays_as_on_one_device(tmp_path):
    gradients = replica_gradients(4)
    for step in (1, 2):
        for own in gradients[step]:
            own[1] = None
    path = weights_file(tmp_path, negligible=0.01, **NUMBERS)
    one, two = both(path, gradients[:1])
    one.optimizer.swap_to_theta()
    two.optimizer.swap_to_theta()
    for first, second in gradients[1:]:
        total = [
            None if a is None else a + b
            for a, b in zip(first, second, strict=True)
        ]
        one.step([total])
        two.step([first, second])
    same(one.all, two.all, 1e-9)


def aggregated(strategy, *ways, **kwargs):
    """A variable for each way to aggregate copies, and their optimizer."""
    with strategy.scope():
        variables = [
            keras.Variable(np.ones(3, "float32"), aggregation=way)
            for way in ways
        ]
        optimizer = HierarchicalRNN(0.125, use_ema=True, **kwargs)
        optimizer.swapped_by_callback = True
        optimizer.build(variables)
    return variables, optimizer


def test_the_aggregation_of_a_variable_does_not_matter():
    strategy = mirrored()
    ways = "none", "mean", "only_first_replica"
    own, optimizer = aggregated(strategy, *ways, ema_overwrite_frequency=2)

    @tf.function
    def step():
        strategy.run(lambda: optimizer.apply([tf.ones(3)] * len(own), own))

    step()
    for variable in own:
        first, second = copies(variable)
        np.testing.assert_array_equal(first, second)
        assert np.all(first < 0.95)


def test_swaps_in_cross_replica_context(tmp_path):
    one, two = both(weights_file(tmp_path), replica_gradients(2))
    phi = [copies(v) for v in two.variables]
    for side in (one, two):
        with side.strategy.scope():
            assert side.optimizer.swap_to_theta()
    assert two.optimizer.holds_theta
    same(one.all, two.all, 1e-9)
    assert not np.allclose(phi[2], copies(two.variables[2]))
    assert two.optimizer.swap_to_phi()
    for before, variable in zip(phi, two.variables, strict=True):
        np.testing.assert_allclose(copies(variable), before, 1e-12)


# Models in Keras's `fit`, and in this project's loop.


DATA = replica_worker.data()


def new_model(strategy, path, rows=None, **kwargs):
    """A model compiled in the strategy's scope, from the same seed."""
    compile_with = kwargs.pop("compile_with", {})
    policy = kwargs.pop("policy", "float32")
    with strategy.scope():
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Input(DATA[0].shape[1:])]
        if rows:
            layers = [
                keras.layers.Input((), dtype="int32"),
                keras.layers.Embedding(rows, 3),
            ]
        layers += [
            keras.layers.Dense(7, activation="tanh", dtype=policy),
            keras.layers.Dense(DATA[1].shape[1], dtype=policy),
        ]
        model = keras.Sequential(layers)
        optimizer = HierarchicalRNN(1e-2, weights=path, **kwargs)
        if policy == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, 64.0)
        model.compile(optimizer=optimizer, loss="mse", **compile_with)
    return model


def fit(model, x=DATA[0], **kwargs):
    return model.fit(
        x,
        DATA[1],
        batch_size=8,
        shuffle=False,
        verbose=0,
        callbacks=[AttentionSwap()],
        **kwargs,
    ).history


def variables(model):
    return [*model.variables, *model.optimizer.variables]


def test_fit_with_validation_and_swaps_equals_one_device(tmp_path):
    path = weights_file(tmp_path)
    models = [new_model(s, path) for s in (one_device(), mirrored())]
    histories = [fit(m, epochs=2, validation_data=DATA) for m in models]
    same(variables(models[0]), variables(models[1]))
    for key, wanted in histories[0].items():
        np.testing.assert_allclose(histories[1][key], wanted, 1e-5)
    np.testing.assert_allclose(
        models[1].predict(DATA[0], verbose=0),
        models[0].predict(DATA[0], verbose=0),
        1e-4,
        1e-5,
    )


@pytest.mark.slow
def test_fit_with_an_embeddings_sparse_gradients(tmp_path):
    path = weights_file(tmp_path)
    x = np.random.default_rng(0).integers(0, 5, len(DATA[0]))
    one = new_model(one_device(), path, rows=6)
    two = new_model(mirrored(), path, rows=6)
    fit(one, x), fit(two, x)
    same(variables(one), variables(two))


@pytest.mark.slow
def test_fit_in_mixed_precision_with_loss_scaling(tmp_path):
    path = weights_file(tmp_path)
    one = new_model(one_device(), path, policy="mixed_float16")
    two = new_model(mirrored(), path, policy="mixed_float16")
    fit(one), fit(two)
    # A gradient has 11 bits, and here it is a sum of halves. Close to zero all
    # of its bits may differ, and so may hidden states.
    same(one.variables, two.variables, 1e-2)
    scale = two.optimizer.dynamic_scale
    assert copies(scale) == [64.0, 64.0]
    bad = DATA[0][:8].copy()
    bad[0] = np.inf
    two.fit(bad, DATA[1][:8], batch_size=8, verbose=0)
    assert copies(scale) == [32.0, 32.0]
    assert np.all(np.isfinite(two.predict(DATA[0], verbose=0)))


@pytest.mark.parametrize("first", [mirrored, one_device])
def test_a_saved_model_goes_on_under_the_other_strategy(tmp_path, first):
    path = weights_file(tmp_path)
    second = one_device if first is mirrored else mirrored
    model = new_model(first(), path)
    fit(model)
    model.save(tmp_path / "model.keras")
    with second().scope():
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.holds_theta == model.optimizer.holds_theta
    fit(model), fit(loaded)
    pair = [variables(model), variables(loaded)]
    same(*(pair if first is one_device else reversed(pair)))


@pytest.mark.slow
def test_the_loop_equals_one_device(tmp_path):
    path = weights_file(tmp_path)
    one = replica_worker.run(one_device(), path)
    two = replica_worker.run(mirrored(), path)
    replica_worker.check(one, two)


def test_the_loop_weighs_a_smaller_last_batch_as_one_device_does(tmp_path):
    path = weights_file(tmp_path)
    ends = []
    for strategy in (one_device(), mirrored()):
        loop = replica_worker.new_loop(strategy, path)
        data = replica_worker.examples().take(8 + 5)
        batches = replicas.distribute(strategy, data, 8, drop_remainder=False)
        logs = loop.train(iter(batches), 2)
        ends.append(replica_worker.ending(loop, logs))
    for one, two in zip(*ends, strict=True):
        np.testing.assert_allclose(two, one, 1e-5, 1e-5)


def test_a_last_batch_is_left_out():
    strategy = mirrored()
    data = tf.data.Dataset.range(8 + 5)
    batches = replicas.distribute(strategy, data, 4)
    seen = [strategy.experimental_local_results(b) for b in batches]
    seen = [np.concatenate([r.numpy() for r in rs]) for rs in seen]
    np.testing.assert_array_equal(seen, np.arange(12).reshape(3, 4))


def test_mirrored_means_all_logical_devices():
    assert replicas.make_strategy("mirrored").num_replicas_in_sync == 2
    assert replicas.make_strategy("auto").num_replicas_in_sync == 1


# What is refused.


def test_accumulation_is_refused_when_built():
    text = "Use larger batches.*Received: gradient_accumulation_steps=2"
    with mirrored().scope():
        variable = keras.Variable(np.ones(2, "float32"))
        optimizer = HierarchicalRNN(gradient_accumulation_steps=2)
        with pytest.raises(ValueError, match=text):
            optimizer.build([variable])


def test_accumulation_is_refused_in_fit(tmp_path):
    model = new_model(
        mirrored(), weights_file(tmp_path), gradient_accumulation_steps=2
    )
    with pytest.raises(ValueError, match="gradient_accumulation_steps=2"):
        fit(model)


def test_a_step_compiled_as_a_whole_is_refused(tmp_path):
    options = {"compile_with": {"jit_compile": True}}
    model = new_model(mirrored(), weights_file(tmp_path), **options)
    with pytest.raises(ValueError, match="must be off under Mirrored"):
        fit(model)


def assert_refused(strategy, kind):
    """It is refused by name when it is built, and an alternative is named."""
    name = type(strategy).__name__
    with strategy.scope():
        variable = kind(np.ones(2, "float32"))
        optimizer = HierarchicalRNN()
        text = f"Use tf.distribute.Mirrored.*strategy={name}"
        with pytest.raises(ValueError, match=text):
            optimizer.build([variable])


def test_central_storage_is_refused():
    strategy = tf.distribute.experimental.CentralStorageStrategy()
    assert_refused(strategy, keras.Variable)


def test_an_optimizer_made_outside_the_scope_is_refused():
    optimizer = HierarchicalRNN()
    with mirrored().scope():
        variable = keras.Variable(np.ones(2, "float32"))
        with pytest.raises(ValueError, match="Received: iteration, one var"):
            optimizer.build([variable])


def test_a_model_made_outside_the_scope_is_refused():
    variable = keras.Variable(np.ones(2, "float32"), name="kernel")
    with mirrored().scope():
        optimizer = HierarchicalRNN()
        with pytest.raises(ValueError, match="Received: kernel, one variable"):
            optimizer.build([variable])


@pytest.mark.parametrize("graph", [False, True])
def test_an_optimizer_built_elsewhere_is_refused(graph):
    strategy = mirrored()
    with strategy.scope():
        variable = keras.Variable(np.ones(2, "float32"))
        optimizer = HierarchicalRNN()
    optimizer.build([variable])

    def step():
        strategy.run(lambda: optimizer.apply([tf.ones(2)], [variable]))

    with pytest.raises(ValueError, match="one variable for all replicas"):
        tf.function(step)() if graph else step()


def test_a_first_step_inside_a_graph_is_refused():
    strategy = mirrored()
    with strategy.scope():
        variable = keras.Variable(np.ones(2, "float32"))
        optimizer = HierarchicalRNN()

    @tf.function
    def step():
        strategy.run(lambda: optimizer.apply([tf.ones(2)], [variable]))

    with pytest.raises(ValueError, match="must be built before the first"):
        step()


def test_a_step_outside_of_run_is_refused():
    with mirrored().scope():
        variable = keras.Variable(np.ones(2, "float32"))
        optimizer = HierarchicalRNN()
        optimizer.build([variable])
        with pytest.raises(ValueError, match="inside `strategy.run`"):
            optimizer.apply([tf.ones(2)], [variable])


# Checkpoints of `training.imagenet`.


@pytest.mark.slow
@pytest.mark.parametrize("back", [False, True])
def test_a_checkpoint_goes_on_under_another_strategy(tmp_path, back):
    path = weights_file(tmp_path)
    first, second = mirrored(), one_device()
    if back:
        first, second = second, first

    def run(strategy, steps):
        loop = replica_worker.new_loop(strategy, path, use_ema=True)
        checkpoints = Checkpoints(
            tmp_path / "run", strategy, loop.model, loop.optimizer
        )
        taken = checkpoints.restore()
        rest = replica_worker.examples().skip(taken * replica_worker.BATCH)
        batches = replicas.distribute(strategy, rest, replica_worker.BATCH)
        loop.train(iter(batches), steps)
        checkpoints.save(taken + steps)
        return taken, loop

    whole = replica_worker.new_loop(one_device(), path, use_ema=True)
    batches = replicas.distribute(
        one_device(), replica_worker.examples(), replica_worker.BATCH
    )
    whole.train(iter(batches), 6)
    assert run(first, 2)[0] == 0
    taken, loop = run(second, 4)
    assert taken == 2
    for wanted, found in (
        (whole.model.variables, loop.model.variables),
        (whole.optimizer.variables, loop.optimizer.variables),
    ):
        for a, b in zip(wanted, found, strict=True):
            for copy in copies(b):
                np.testing.assert_allclose(
                    copy, a.numpy(), 1e-5, 1e-5, err_msg=a.path
                )


# This test comes last, since its servers keep running.


def test_parameter_servers_are_refused():
    cluster = tf.train.ClusterSpec({"worker": [_address()], "ps": [_address()]})
    servers = [
        tf.distribute.Server(cluster, job_name=job, task_index=0)
        for job in ("worker", "ps")
    ]
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster, rpc_layer="grpc"
    )
    assert_refused(tf.distribute.ParameterServerStrategy(resolver), tf.Variable)
    del servers


def _address():
    return f"localhost:{free_port()}"
