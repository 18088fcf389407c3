"""The paper's claims about a step, which hold for any weights."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import RuleConfig
from hrnn_opt.rule import meta_parameters, products
from hrnn_opt.rule import step as rule
from hrnn_opt.rule.segments import Segments
from hrnn_opt.rule.state import initial_state
from tests.test_rule import noisy_vector

CONFIG = RuleConfig()
SIZES = (3, 1, 6, 2)

# A compiled step is traced again for every new object.
segments_of = functools.cache(Segments)


class Run:
    """The rule on one problem, or on several side by side."""

    def __init__(
        self, theta, sizes=SIZES, config=CONFIG, vector=None, lr=0.125
    ):
        self.theta = self.phi = tf.constant(theta)
        if vector is None:
            vector = noisy_vector(config)
        self.config, self.segments, self.lr = config, segments_of(sizes), lr
        self.meta = products.from_vector(
            config, tf.constant(vector, self.theta.dtype)
        )
        self.state = initial_state(
            config, self.meta, self.segments, self.theta.shape[1:]
        )

    def step(self, g, step=rule.step):
        self.theta, self.phi, self.state = step(
            self.config,
            self.meta,
            self.segments,
            self.state,
            self.theta,
            self.phi,
            tf.constant(g, self.theta.dtype),
            tf.constant(self.lr, self.theta.dtype),
        )

    def everything(self):
        """Copies of all arrays except the count of skipped steps."""
        state = self.state
        arrays = (self.theta, self.phi, *state.param, *state.shared)
        arrays += state.tensors
        return [a.numpy() for a in arrays if a is not None]


def start(*instances, seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(sum(SIZES), *instances)).astype(dtype)


def draw_gradients(steps, *instances, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(steps, sum(SIZES), *instances))


def assert_same(some, others):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close(some, others, rtol=1e-12):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_allclose(a, b, rtol, 1e-12)


@pytest.fixture(scope="module", params=["eager", "compiled"])
def step(request):
    """Both, since XLA flushes numbers below 1e-38 to zero."""
    if request.param == "eager":
        return rule.step
    return tf.function(rule.step, jit_compile=True, autograph=False)


@pytest.fixture(scope="module")
def descend(step):
    """20 steps down a valley, the gradient multiplied by a factor."""
    rng = np.random.default_rng(2)
    factor = rng.normal(size=(sum(SIZES), sum(SIZES))) / 3
    hessian = (factor @ factor.T).astype("float32")

    def descend(scale):
        run = Run(start(dtype="float32"))
        thetas = [run.theta.numpy()]
        for _ in range(20):
            # The factor comes last: a float32 product must not overflow.
            run.step(np.float32(scale) * (hessian @ run.phi.numpy()), step)
            thetas.append(run.theta.numpy())
        assert run.state.skipped == 0
        return np.asarray(thetas, "float64")

    return descend


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_scale_of_the_loss_does_not_matter(descend, scale):
    thetas, scaled = descend(1.0), descend(scale)
    assert np.all(np.isfinite(scaled))
    movement = np.max(np.abs(thetas - thetas[0]))
    assert movement > 0.1
    assert np.max(np.abs(scaled - thetas)) < 1e-3 * movement


def test_rms_of_a_step_is_its_length():
    sizes, eta, lr = (1, 7, 1000), 0.7, 0.25
    vector = meta_parameters.initial_vector(CONFIG, 0).astype("float64")
    names = meta_parameters.shapes(CONFIG)
    ends = np.cumsum([np.prod(shape) for shape in names.values()])
    # A fresh optimizer's delta_eta equals its bias.
    vector[int(ends[list(names).index("step_bias")]) - 1] = eta
    rng = np.random.default_rng(3)
    run = Run(rng.normal(size=sum(sizes)), sizes, vector=vector, lr=lr)
    before = run.theta
    run.step(rng.normal(size=sum(sizes)))
    for part in np.split((run.theta - before).numpy(), np.cumsum(sizes)[:-1]):
        rms = np.sqrt(np.mean(part**2))
        np.testing.assert_allclose(rms, lr * np.exp(eta), 1e-12)


def test_unseen_parameters_stay_and_do_not_count():
    fresh = meta_parameters.initial_vector(CONFIG, 0)
    unseen = np.array([0, 4, 5, 7, 10, 11])  # the last tensor as a whole
    run = Run(start(), vector=fresh)
    all_gradients = draw_gradients(5)
    all_gradients[:, unseen] = 0
    for n, g in enumerate(all_gradients):
        run.step(g)
        if n == 0:
            moved = (run.theta - start()).numpy()[[1, 2]]
            rms = np.sqrt(np.mean(moved**2))
            np.testing.assert_allclose(rms, run.lr, 1e-12)
    still = np.flatnonzero(np.equal(run.theta, start()))
    np.testing.assert_array_equal(still, unseen)
    assert_same([run.phi.numpy()[unseen]], [start()[unseen]])


def test_parameters_without_a_gradient_stay_as_they_are():
    """This holds however consistent their last gradients were."""
    run = Run(start())
    gradients = draw_gradients(8)
    for g in np.abs(gradients[:4]):
        run.step(g)
    silent = np.array([1, 5, 10, 11])  # the last tensor as a whole
    theta, eta_bar = run.theta.numpy(), run.state.param.eta_bar.numpy()
    assert np.any(eta_bar) and np.any(run.theta != run.phi)
    for g in gradients[4:]:
        g[silent] = 0
        run.step(g)
        np.testing.assert_array_equal(run.theta.numpy()[silent], theta[silent])
        np.testing.assert_array_equal(run.phi.numpy()[silent], theta[silent])
        found = run.state.param.eta_bar.numpy()
        np.testing.assert_allclose(
            found.ravel()[silent], eta_bar.ravel()[silent], 1e-12
        )
        assert np.all(np.delete(found != eta_bar, silent))


def test_what_is_as_good_as_solved_stays_so():
    """It lasts until a gradient counts again; their size does not matter."""
    thetas = []
    for scale in (1.0, 1e-20):
        run = Run(start(), config=RuleConfig(negligible=1e-5))
        gradients = scale * draw_gradients(12)
        for g in gradients[:4]:
            run.step(g)
        theta, eta_bar = run.theta.numpy(), run.state.param.eta_bar.numpy()
        for g in 1e-7 * gradients[4:8]:
            run.step(g)
            np.testing.assert_array_equal(run.theta, theta)
            np.testing.assert_array_equal(run.phi, theta)
            found = run.state.param.eta_bar.numpy()
            np.testing.assert_allclose(found, eta_bar, 1e-12)
        for g in 1e-2 * gradients[8:]:
            run.step(g)
        assert np.all(np.not_equal(run.theta, theta))
        thetas.append(run.theta.numpy())
    np.testing.assert_allclose(*thetas, 1e-9)


def test_order_of_tensors_does_not_matter():
    order = [2, 0, 3, 1]
    parts = np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1])
    index = np.concatenate([parts[t] for t in order])
    run = Run(start())
    other = Run(start()[index], tuple(SIZES[t] for t in order))
    for g in draw_gradients(8):
        run.step(g)
        other.step(g[index])
    *wanted, h_tensor, h_global = run.everything()[: -len(run.state.tensors)]
    wanted = [
        a[index] if a.ndim == 1 else np.reshape(a, (len(a), -1, 1))[:, index]
        for a in wanted
    ]
    wanted += [h_tensor[:, order], h_global]
    wanted += [value.numpy()[:, order] for value in run.state.tensors]
    assert_close(other.everything(), wanted)


@pytest.mark.parametrize("global_rnn", [True, False])
def test_first_tensor_reaches_the_last_by_the_global_rnn_alone(global_rnn):
    # Off, because eta_rel is a second path from one tensor to another.
    config = RuleConfig(global_rnn=global_rnn, relative_learning_rate=False)
    first, second = draw_gradients(2)
    changed = first.copy()
    changed[: SIZES[0]] *= [-2, 3, 0.5]
    one, other = (Run(start(), config=config) for _ in range(2))
    last = slice(-SIZES[-1], None)
    one.step(first)
    other.step(changed)
    assert np.all(np.not_equal(one.theta, other.theta)[: SIZES[0]])
    assert_same([one.theta[last]], [other.theta[last]])
    if global_rnn:
        h_globals = [run.state.shared.h_global for run in (one, other)]
        assert np.all(np.not_equal(*h_globals))
    one.step(second)
    other.step(second)
    reached = np.abs(one.theta - other.theta)[last]
    assert np.all(reached > 1e-6) if global_rnn else np.all(reached == 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 3], ids=["at once", "later"])
def test_non_finite_step_changes_nothing(bad, at):
    run, undisturbed = Run(start()), Run(start())
    *all_gradients, last = draw_gradients(at + 1)
    for g in all_gradients:
        run.step(g)
        undisturbed.step(g)
    broken = last.copy()
    broken[4] = bad
    run.step(broken)
    assert_same(run.everything(), undisturbed.everything())
    assert run.state.skipped == 1
    run.step(last)
    undisturbed.step(last)
    assert_same(run.everything(), undisturbed.everything())
    assert run.state.skipped == 1


LEARNING_RATES = (0.5, 0.125, 0.01)


def instance(everything, b):
    return [array[..., b] for array in everything]


def test_instances_side_by_side_are_single_runs():
    together = Run(start(3), lr=LEARNING_RATES)
    singles = [
        Run(start(3)[:, b], lr=lr) for b, lr in enumerate(LEARNING_RATES)
    ]
    for g in draw_gradients(8, 3):
        together.step(g)
        for b, single in enumerate(singles):
            single.step(g[:, b])
            got = instance(together.everything(), b)
            assert_close(got, single.everything())


def test_only_the_bad_instance_is_skipped():
    run, undisturbed = (Run(start(3), lr=LEARNING_RATES) for _ in range(2))
    bad = {2: np.nan, 4: np.inf}
    for n, g in enumerate(draw_gradients(6, 3)):
        undisturbed.step(g)
        before = run.everything()
        g[7, 1] = bad.get(n, g[7, 1])
        run.step(g)
        now = run.everything()
        for b in (0, 2):
            wanted = instance(undisturbed.everything(), b)
            assert_same(instance(now, b), wanted)
        if n in bad:
            assert_same(instance(now, 1), instance(before, 1))
    np.testing.assert_array_equal(run.state.skipped, [0, 2, 0])
    assert np.all(np.not_equal(now[0][:, 1], undisturbed.theta[:, 1]))
