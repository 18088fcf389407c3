"""A run of meta-training: its optimizer, its pool, stopping and resuming."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt.rule.config import RuleConfig
from problems import Row
from problems.convex import Quadratic
from problems.minibatch import MinibatchQuadratic
from tests.meta_cases import FAMILY, TINY, Traced
from training.common import checkpoints
from training.engine import meta_optimizer
from training.engine.compiled import Compiled
from training.engine.config import MetaConfig
from training.rules.hierarchical import Hierarchical
from training.runs.local import Run, choose

FAMILIES = (FAMILY, Quadratic(2), MinibatchQuadratic(3))
ROWS = tuple(
    Row(family.name, weight, family)
    for family, weight in zip(FAMILIES, (0.5, 0.25, 0.25), strict=True)
)
CONFIG = MetaConfig(
    seed=2, work=8, segment=3, mean_steps=3.0, first_mean_unrolls=1.0,
    curriculum=4, meta_rate=1e-2, meta_rate_decay=4,
)  # fmt: skip


def constant_rate(kind):
    return MetaConfig(
        meta_optimizer=kind, clip=0.0, meta_rate=1e-2, meta_rate_end=1e-2
    )


@pytest.mark.parametrize(
    "kind, rival",
    [
        ("adam", keras.optimizers.Adam(1e-2, epsilon=1e-8)),
        ("rmsprop", keras.optimizers.RMSprop(1e-2, epsilon=0.0)),
    ],
)
def test_optimizers_move_like_those_of_keras(kind, rival):
    """Their epsilons are in other places: 1e-7 of gradients of about one."""
    random = np.random.default_rng(0)
    state = meta_optimizer.initial(random.normal(size=30).astype("float32"))
    variable = keras.Variable(state.vector)
    for n in range(20):
        gradient = random.normal(0.5, 1.0, 30).astype("float32")
        state = meta_optimizer.update(constant_rate(kind), state, gradient)
        rival.apply([tf.constant(gradient)], [variable])
        np.testing.assert_allclose(state.vector, variable, 1e-5, 2e-6)
        assert state.updates == state.iteration == n + 1
    assert state.vector.dtype == state.average.dtype == np.float32


def test_long_gradients_are_clipped():
    config = MetaConfig(clip=2.0)
    state = meta_optimizer.initial(np.zeros(2, "float32"))
    long = meta_optimizer.update(config, state, np.array([30.0, 40.0]))
    np.testing.assert_allclose(long.mean, [0.1 * 1.2, 0.1 * 1.6], 1e-6)
    short = meta_optimizer.update(config, state, np.array([0.3, 0.4]))
    np.testing.assert_allclose(short.mean, [0.03, 0.04], 1e-6)


def test_rate_falls_evenly_in_its_logarithm():
    config = MetaConfig(meta_rate=1e-2, meta_rate_end=1e-4, meta_rate_decay=100)
    found = [float(meta_optimizer.rate(config, n)) for n in (0, 50, 100, 1000)]
    assert found == pytest.approx([1e-2, 1e-3, 1e-4, 1e-4])
    start = meta_optimizer.initial(np.zeros(1, "float32"))
    late = start._replace(iteration=50)
    moved = meta_optimizer.update(config, late, np.ones(1)).vector
    np.testing.assert_allclose(moved, [-1e-3], 1e-5)


def test_zero_gradient_leaves_everything_but_the_iteration():
    state = meta_optimizer.initial(np.ones(3, "float32"))
    state = meta_optimizer.update(CONFIG, state, np.ones(3, "float32"))
    after = meta_optimizer.update(CONFIG, state, np.zeros(3, "float32"))
    assert (after.iteration, after.updates) == (2, 1)
    for a, b in zip(after[:4], state[:4], strict=True):
        np.testing.assert_array_equal(a, b)


def test_average_starts_as_a_mean_and_decays_then():
    config = MetaConfig(averaging=0.5)
    state = meta_optimizer.initial(np.zeros(1, "float32"))
    first = meta_optimizer.update(config, state, np.ones(1))
    np.testing.assert_allclose(first.average, 10 / 11 * first.vector, 1e-6)
    late = meta_optimizer.update(config, first._replace(updates=90), np.ones(1))
    wanted = (first.average + late.vector) / 2
    np.testing.assert_allclose(late.average, wanted, 1e-6)


def made(steps=None, config=TINY):
    """A run that reuses the compiled steps of another, which hold no state."""
    run = Run(Hierarchical(config), ROWS, CONFIG)
    if steps:
        run.steps = steps
        return run
    for step in run.steps.values():
        step.unroll = Traced(
            run.rule, step.family, CONFIG.segment, CONFIG.epsilon,
            clip_step=CONFIG.clip_step,
        )  # fmt: skip
    return run


@pytest.fixture(scope="module")
def whole():
    """Six uninterrupted meta-iterations, and the arrays after three."""
    run = made()
    assert set(run.compile()) == set(run.steps)
    results, half = [], None
    for n in range(6):
        half = run.arrays() if n == 3 else half
        results.append(run.iterate())
    return run, results, half


def assert_same(some, others):
    assert some.keys() == others.keys()
    for name, value in some.items():
        np.testing.assert_array_equal(value, others[name], name)


def test_a_resumed_run_goes_on_bit_for_bit(whole, tmp_path):
    run, results, half = whole
    assert len({row.name for row, _ in results}) > 1
    assert any(name.startswith("pool/") for name in half)
    checkpoints.write(tmp_path / "half.npz", half, {})
    resumed = made(run.steps)
    resumed.restore(checkpoints.read(tmp_path / "half.npz")[0])
    assert_same(resumed.arrays(), half)
    again = [resumed.iterate() for _ in range(3)]
    assert again == results[3:]
    assert resumed.inner_steps == run.inner_steps > 0
    assert_same(resumed.arrays(), run.arrays())


def test_runs_repeat_and_depend_on_the_seed(whole):
    run, results, _ = whole
    again = made(run.steps)
    assert [again.iterate() for _ in range(2)] == results[:2]
    assert np.any(again.state.vector != again.rule.initial_meta(2))
    assert again.inner_steps == sum(
        int(s.segments) * 3 * 4 for _, s in results[:2]
    )
    chosen = {choose(ROWS, CONFIG.seed, n).name for n in range(30)}
    assert chosen == {row.name for row in ROWS}


def test_without_the_pool_it_goes_on_with_new_problems(whole):
    run, _, _ = whole
    small = run.arrays(pool=False)
    assert all(name.startswith("state/") for name in small)
    other = made(run.steps)
    other.restore(small)
    assert other.pool == {} and other.state.iteration == 6
    row, statistics = other.iterate()
    assert list(other.pool) == [row.name] and statistics.age == 0
    assert np.any(other.state.vector != run.state.vector)


@pytest.mark.slow
@pytest.mark.parametrize("leaves", ["fewer", "more"])
def test_problems_of_a_rule_with_another_state_go(whole, leaves):
    """The checkpoint is of a version whose state had other leaves."""
    run, _, half = whole
    arrays = dict(half)
    names = [name for name in arrays if name.startswith("pool/")]
    for row in {name.split("/")[1] for name in names}:
        count = sum(name.startswith(f"pool/{row}/") for name in names)
        last = f"pool/{row}/{count - 1}"
        if leaves == "fewer":
            del arrays[last]
        else:
            arrays[f"pool/{row}/{count}"] = arrays[last]
    other = made(run.steps)
    other.restore(arrays)
    assert other.pool == {} and other.state.iteration == 3
    other.iterate()
    assert other.pool


def test_small_arrays_are_small(tmp_path):
    run = Run(Hierarchical(), ROWS, CONFIG)
    path = tmp_path / "small.npz"
    checkpoints.write(path, run.arrays(pool=False), {})
    assert path.stat().st_size < 2_000_000


def test_meta_parameters_of_another_size_are_refused(whole):
    other = made(config=RuleConfig(param_units=3))
    with pytest.raises(ValueError, match="meta-parameters of this rule"):
        other.restore(whole[2])


def test_compiled_refuses_other_shapes():
    double = Compiled(lambda x: {"twice": 2 * x["one"]})
    given = {"one": tf.ones(3)}
    np.testing.assert_array_equal(double(given)["twice"], [2, 2, 2])
    for wrong in (tf.ones(4), tf.ones((3, 1)), tf.ones(3, tf.float64)):
        with pytest.raises(TypeError):
            double({"one": wrong})


def test_what_is_traced_first_is_not_traced_again():
    traces = []

    def double(x):
        traces.append(x["one"].shape)
        return {"twice": 2 * x["one"]}

    double = Compiled(double)
    told = double.trace({"one": tf.TensorSpec(3)})
    assert told == {"twice": tf.TensorSpec(3)}
    np.testing.assert_array_equal(double({"one": tf.ones(3)})["twice"], [2] * 3)
    assert double.trace({"one": tf.TensorSpec(3)}) == told
    assert traces == [(3,)]
