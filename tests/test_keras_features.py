"""Every feature of a Keras optimizer, compared with the reference.

Constants are powers of two where Keras passes them through float32.
"""

import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt.rule.config import WITHOUT_LENGTH
from tests.reference_pair import (
    BIAS,
    FILTERS,
    KERNEL,
    NUMBERS,
    SCALE,
    SHAPES,
    ReferencePair,
    draw_gradients,
    new_variables,
    weights_file,
)

pytestmark = pytest.mark.filterwarnings("ignore:Gradients do not exist")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return weights_file(tmp_path_factory.mktemp("weights"))


def differ(some, others):
    """Whether every pair of arrays differs visibly."""
    pairs = zip(some, others, strict=True)
    return all(np.max(np.abs(a - b)) > 1e-4 for a, b in pairs)


@pytest.mark.parametrize("mode", ["eager", "graph", "jit"])
def test_plain_steps(path, mode):
    pair = ReferencePair(path, mode=mode)
    pair.run(draw_gradients(10))
    # Otherwise attention would go untested everywhere in this file.
    zeros = [np.zeros(shape) for shape in SHAPES.values()]
    assert differ(pair.reference.offset, zeros)


@pytest.mark.parametrize("mode", ["eager", "graph", "jit"])
def test_numbers_of_the_rule(tmp_path, mode):
    path = weights_file(tmp_path, negligible=0.05, length_unit=0.3, **NUMBERS)
    pair = ReferencePair(path, mode=mode)
    gradients = draw_gradients(10)
    gradients[4][KERNEL] = gradients[5][KERNEL] = None
    gradients[5][SCALE] = None
    for step in gradients[6:8]:
        step[BIAS] *= 1e-4
    for step in gradients[1::2]:
        step[BIAS][1:] = 0
    lowered = grown = rare = 0
    for step, given in enumerate(gradients):
        before = pair.variables[BIAS].numpy()
        pair.step(given)
        pair.check()
        np.testing.assert_allclose(
            pair.optimizer._slots.tensors[0], pair.reference.largest, 1e-12
        )
        steps = pair.reference.log_step
        above = steps - pair.reference._mean_log_step(slice(None), steps)
        lowered += np.any(above > NUMBERS["tensor_spread"])
        grown += np.any(steps > pair.reference.average + 1e-3)
        rare += np.any(pair.reference.own_steps[BIAS] < step)
        if step == 7:  # It is at theta since the previous step.
            np.testing.assert_array_equal(pair.variables[BIAS], before)
    assert min(lowered, grown, rare) > 3


AVERAGING = {
    "use_ema": True,
    "ema_momentum": 0.75,
    "ema_overwrite_frequency": 3,
}
FEATURES = {
    "clipnorm": {"clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.25},
    "global_clipnorm": {"global_clipnorm": 2.0},
    "weight_decay": {"weight_decay": 0.5},
    "ema_overwrite": AVERAGING,
    "accumulation": {"gradient_accumulation_steps": 3},
    "all": AVERAGING
    | {
        "global_clipnorm": 2.0,
        "weight_decay": 0.5,
        "gradient_accumulation_steps": 2,
    },
}


@pytest.mark.parametrize(
    "mode, feature",
    [
        *itertools.product(["eager", "graph"], FEATURES),
        ("jit", "all"),
    ],
)
def test_feature(path, mode, feature):
    kwargs = FEATURES[feature]
    carried = dict(kwargs)
    carried.pop("use_ema", None)
    if "gradient_accumulation_steps" in carried:
        carried["accumulation_steps"] = carried.pop(
            "gradient_accumulation_steps"
        )
    all_gradients = draw_gradients(10)
    pair = ReferencePair(path, reference=carried, mode=mode, **kwargs)
    pair.run(all_gradients)
    without = ReferencePair(path).reference
    for gradients in all_gradients:
        without.apply(gradients)
    assert differ(pair.reference.variables, without.variables)


@pytest.mark.parametrize("by", ["name", "list", "both"])
def test_excluded_from_weight_decay(path, by):
    no_decay = {"name": [BIAS], "list": [KERNEL], "both": [BIAS, KERNEL]}[by]
    pair = ReferencePair(
        path,
        weight_decay=0.5,
        reference={"weight_decay": 0.5, "no_decay": no_decay},
    )
    pair.optimizer.exclude_from_weight_decay(
        var_list=[pair.variables[KERNEL]] if KERNEL in no_decay else None,
        var_names=["bias"] if BIAS in no_decay else None,
    )
    pair.run(draw_gradients(6))


@pytest.mark.parametrize("average", [False, True])
def test_finalize_leaves_theta_and_goes_on(path, average):
    kwargs = {"use_ema": True, "ema_momentum": 0.75} if average else {}
    carried = {"ema_momentum": 0.75} if average else {}
    pair = ReferencePair(path, reference=carried, mode="graph", **kwargs)
    all_gradients = draw_gradients(9)
    pair.run(all_gradients[:6])
    reference = pair.reference
    before = reference.theta
    if average:
        reference.theta = [a.copy() for a in reference.averages]
        assert differ(before, reference.theta)
    reference.to_theta()
    pair.optimizer.finalize_variable_values(pair.variables)
    pair.check()
    pair.run(all_gradients[6:])


@keras.saving.register_keras_serializable()
class Table(keras.optimizers.schedules.LearningRateSchedule):
    """Warms up from 0, decays to 0, resumes: exact in float32."""

    VALUES = (0.0, 0.125, 0.25, 0.5, 0.125, 0.0, 0.0, 0.25, 0.125)

    def __call__(self, step):
        return keras.ops.take(keras.ops.convert_to_tensor(self.VALUES), step)

    def get_config(self):
        return {}


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_schedule(path, mode):
    pair = ReferencePair(path, Table(), mode=mode, weight_decay=0.5,
                  reference={"weight_decay": 0.5})  # fmt: skip
    pair.reference.learning_rate = lambda n: Table.VALUES[n]
    pair.run(draw_gradients(len(Table.VALUES)))


def test_schedule_counts_calls_where_gradients_accumulate(path):
    pair = ReferencePair(path, Table(), gradient_accumulation_steps=2,
                  reference={"accumulation_steps": 2})  # fmt: skip
    pair.reference.learning_rate = lambda n: Table.VALUES[n]
    pair.run(draw_gradients(8))


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_callable_learning_rate(path, mode):
    rate = keras.Variable(0.0)
    pair = ReferencePair(path, lambda: rate.value, mode=mode)
    for value, gradients in zip(
        Table.VALUES, draw_gradients(len(Table.VALUES)), strict=True
    ):
        rate.assign(value)
        pair.reference.learning_rate = value
        pair.run([gradients])


@pytest.mark.parametrize("bounds", [{}, NUMBERS])
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_learning_rate_assigned_between_steps(tmp_path, mode, bounds):
    path = weights_file(tmp_path, **bounds)
    pair = ReferencePair(path, 0.125, mode=mode)
    values = (0.125, 0.125, 0.5, 0.5, 0.0, 0.125, 0.125, 0.0625, 2.0, 0.25)
    all_gradients = draw_gradients(len(values))
    all_gradients[6][KERNEL] = None
    for value, gradients in zip(values, all_gradients, strict=True):
        pair.optimizer.learning_rate = value
        pair.reference.learning_rate = value
        pair.run([gradients])
        rates = pair.optimizer._slots.rates
        for name in ("ceiling", "debt"):
            np.testing.assert_allclose(
                getattr(rates, name)[0], getattr(pair.reference, name), 1e-9
            )
    # A higher rate took back growth in some tensors.
    assert np.any(pair.reference.debt > 0.01)


def max_norm(w):
    norm = np.sqrt(np.sum(w**2, axis=0))
    return w * np.clip(norm, 0, 0.5) / (1e-7 + norm)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_constraints_act_on_theta(path, mode):
    pair = ReferencePair(
        path,
        mode=mode,
        reference={
            "constraints": {
                BIAS: lambda w: np.maximum(w, 0),
                KERNEL: max_norm,
            }
        },
    )
    pair.variables[BIAS].constraint = keras.constraints.NonNeg()
    pair.variables[KERNEL].constraint = keras.constraints.MaxNorm(0.5)
    all_gradients = draw_gradients(10)
    all_gradients[4][BIAS] = None
    all_gradients[6][SCALE] = np.array(np.nan)
    lowest = []
    for gradients in all_gradients[:8]:
        pair.run([gradients])
        lowest.append(np.min(pair.variables[BIAS].numpy()))
    # phi itself breaks the constraint.
    assert np.min(lowest) < 0
    pair.optimizer.swap_to_theta()
    pair.reference.to_theta()
    assert np.min(pair.variables[BIAS].numpy()) >= 0
    pair.run(all_gradients[8:])


@pytest.mark.parametrize("at_theta", [False, True])
def test_variables_set_between_steps(path, at_theta):
    pair = ReferencePair(path)
    all_gradients = draw_gradients(8)
    pair.run(all_gradients[:4])
    if at_theta:
        pair.optimizer.swap_to_theta()
        pair.reference.to_theta()
    values = [3 * v.numpy() - 1 for v in pair.variables]
    for variable, value in zip(pair.variables, values, strict=True):
        variable.assign(value)
    pair.reference.set_variables(values)
    pair.run(all_gradients[4:])


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_missing_gradients(path, mode):
    pair = ReferencePair(path, mode=mode)
    all_gradients = draw_gradients(9)
    for step in (0, 2, 5, 7):
        all_gradients[step][KERNEL] = None
        all_gradients[step][SCALE] = None
    for step, gradients in enumerate(all_gradients):
        if step in (3, 5):  # 5: a variable without gradient becomes phi, too
            pair.optimizer.swap_to_theta()
            pair.reference.to_theta()
        pair.run([gradients])


def test_frozen_variables_stay(path):
    pair = ReferencePair(path)
    pair.run(draw_gradients(3))
    frozen = pair.variables[FILTERS].numpy()
    for gradients in draw_gradients(5, seed=3):
        pairs = list(zip(gradients, pair.variables, strict=True))[:FILTERS]
        pair.optimizer.apply_gradients(pairs)
        pair.reference.apply([*gradients[:FILTERS], None])
        pair.check()
    np.testing.assert_array_equal(pair.variables[FILTERS].numpy(), frozen)
    pair.run(draw_gradients(2, seed=4))


@pytest.mark.parametrize(
    "mode, bad",
    [("eager", np.nan), ("eager", -np.inf), ("graph", np.inf), ("jit", np.nan)],
)
def test_non_finite_step_is_skipped_whole(path, mode, bad):
    pair = ReferencePair(path, mode=mode)
    all_gradients = draw_gradients(8)
    all_gradients[0][BIAS][1] = bad  # before anything was seen
    all_gradients[4][SCALE] = np.array(bad)
    all_gradients[5][FILTERS][0, 0, 1, 1] = bad
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pair.run(all_gradients)
        assert pair.optimizer.skipped_steps == 3
        pair.optimizer.finalize_variable_values(pair.variables)
        pair.optimizer.finalize_variable_values(pair.variables)
    assert sum("skipped" in str(w.message) for w in caught) == 1


def test_skipped_step_leaves_variables_at_theta(path):
    pair = ReferencePair(path)
    pair.run(draw_gradients(3))
    pair.optimizer.swap_to_theta()
    pair.reference.to_theta()
    bad, good = draw_gradients(2, seed=3)
    bad[KERNEL][0, 0] = np.nan
    with pytest.warns(UserWarning, match="skipped 1 step"):
        pair.step(bad)
    pair.check()
    assert pair.optimizer.holds_theta
    pair.run([good])


@pytest.mark.parametrize(
    "config",
    [
        {"attention": False},
        WITHOUT_LENGTH,
        {"attention": False, "timescales": 2, "param_units": 5},
    ],
)
def test_ablation(tmp_path, config):
    path = weights_file(tmp_path, **config)
    pair = ReferencePair(
        path, weight_decay=0.5, reference={"weight_decay": 0.5}
    )
    pair.run(draw_gradients(6))
    pair.optimizer.finalize_variable_values(pair.variables)
    for got, wanted in zip(pair.variables, pair.reference.theta, strict=True):
        np.testing.assert_allclose(got.numpy(), wanted, 1e-9)


def test_two_optimizers_do_not_disturb_each_other(path, tmp_path):
    other = weights_file(tmp_path, seed=5)
    pairs = [
        ReferencePair(path),
        ReferencePair(other, 0.5, mode="graph"),
        ReferencePair(
            path, 0.25, reference={"weight_decay": 0.5}, weight_decay=0.5
        ),
    ]
    for k in range(5):
        for number, pair in enumerate(pairs):
            pair.step(draw_gradients(5, seed=number)[k])
    for pair in pairs:
        pair.check()


@pytest.mark.parametrize("swap", [False, True])
def test_bfloat16_variables_accumulate_small_steps(path, swap):
    # Next to 1.3, bfloat16 has a spacing of 2^-7, and a step is 2^-12.
    start = np.float32(1.296875)
    variables = [
        keras.Variable(np.full(shape, start), dtype="bfloat16", name=name)
        for name, shape in SHAPES.items()
    ]
    pair = ReferencePair(path, 2.0**-12, variables=variables)
    rng = np.random.default_rng(3)
    signs = [rng.choice([-1.0, 1.0], shape) for shape in SHAPES.values()]
    for _ in range(20):
        pair.step(signs)
        if swap:
            pair.optimizer.swap_to_theta()
            pair.optimizer.swap_to_phi()
    slots, reference = pair.optimizer._slots, pair.reference
    for t, theta in enumerate(reference.theta):
        phi, held = reference.variables[t], variables[t].numpy().astype(float)
        offset = slots.offset(t).numpy()
        np.testing.assert_allclose(held - offset, theta, 0, 2e-6)
        np.testing.assert_allclose(held, phi, 0, 2.0**-8)
        assert np.min(np.abs(theta - start)) > 10 * 2.0**-12


def test_float64_variable_makes_the_whole_state_float64(path):
    mixed = new_variables("float32")
    mixed[BIAS] = keras.Variable(np.ones(3), dtype="float64", name="bias")
    pair = ReferencePair(path, variables=mixed)
    for gradients in draw_gradients(6):
        pair.step(gradients)
    np.testing.assert_allclose(
        mixed[BIAS].numpy(), pair.reference.variables[BIAS], 1e-9
    )
    np.testing.assert_allclose(
        mixed[KERNEL].numpy(), pair.reference.variables[KERNEL], 1e-5
    )
    states = pair.optimizer._slots.states
    assert {s.dtype for pieces in states for s in pieces} == {"float64"}


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize(
    "feature",
    [{}, {"clipnorm": 0.5}, {"clipvalue": 0.25}, {"loss_scale_factor": 4.0}],
)
def test_embedding_equals_dense_and_leaves_unseen_rows(path, mode, feature):
    rows, width = 6, 2
    rng = np.random.default_rng(4)
    start = rng.normal(size=(rows, width))
    table = keras.Variable(start, dtype="float64", name="table")
    carried = {k: v for k, v in feature.items() if k.startswith("clip")}
    pair = ReferencePair(path, variables=[table], reference=carried, **feature)
    pair.optimizer.build([table])

    def apply(values, indices):
        slices = tf.IndexedSlices(values, indices, (rows, width))
        pair.optimizer.apply_gradients([(slices, table)])

    if mode == "graph":
        apply = tf.function(apply, autograph=False)
    scale = feature.get("loss_scale_factor", 1.0)
    for indices in ([0, 3, 3], [3, 1, 0], [0, 0, 0], [1, 4, 1]):
        values = rng.normal(size=(3, width))
        dense = np.zeros((rows, width))
        np.add.at(dense, indices, values)
        apply(tf.constant(scale * values), tf.constant(indices))
        pair.reference.apply([dense])
        pair.check()
    unseen = [2, 5]
    np.testing.assert_array_equal(table.numpy()[unseen], start[unseen])
    np.testing.assert_array_equal(
        pair.optimizer._slots.offset(0).numpy()[unseen], 0
    )


def test_apply_without_variables(path):
    pair = ReferencePair(path)
    pair.variables[BIAS].constraint = keras.constraints.NonNeg()
    pair.reference.constraints = {BIAS: lambda w: np.maximum(w, 0)}
    pair.optimizer.build(pair.variables)
    for gradients in draw_gradients(4):
        pair.optimizer.apply(
            [tf.constant(g, pair.variables[0].dtype) for g in gradients]
        )
        pair.reference.apply(gradients)
        pair.check()
