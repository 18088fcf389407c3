"""What the paper promises of a step, whatever the weights are."""

import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import RuleConfig, meta_parameters, rule
from hrnn_opt.segments import Segments
from tests.test_rule import noisy_vector

CONFIG = RuleConfig()
SIZES = (3, 1, 6, 2)


class Run:
    """The rule on one problem, or on several side by side."""

    def __init__(
        self, theta, sizes=SIZES, config=CONFIG, vector=None, lr=0.125
    ):
        self.theta = self.phi = tf.constant(theta)
        if vector is None:
            vector = noisy_vector(config)
        self.config, self.segments, self.lr = config, Segments(sizes), lr
        self.meta = meta_parameters.unflatten(
            config, tf.constant(vector, self.theta.dtype)
        )
        self.state = rule.initial_state(
            config, self.meta, self.segments, self.theta.shape[:-1]
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
        """Copies of all arrays but the count of skipped steps."""
        arrays = (self.theta, self.phi, *self.state.param, *self.state.shared)
        return [a.numpy() for a in arrays]


def start(*lead, seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*lead, sum(SIZES))).astype(dtype)


def draw_gradients(steps, *lead, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(steps, *lead, sum(SIZES)))


def assert_same(some, others):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close(some, others, rtol=1e-12):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_allclose(a, b, rtol, 1e-12)


@pytest.fixture(scope="module", params=["eager", "compiled"])
def step(request):
    """Both, since XLA flushes what is below 1e-38 to zero."""
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
    # A fresh optimizer's delta_eta is its bias.
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


def test_order_of_tensors_does_not_matter():
    order = [2, 0, 3, 1]
    parts = np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1])
    index = np.concatenate([parts[t] for t in order])
    run = Run(start())
    other = Run(start()[index], [SIZES[t] for t in order])
    for g in draw_gradients(8):
        run.step(g)
        other.step(g[index])
    *wanted, h_tensor, h_global = run.everything()
    wanted = [
        a[index] if a.ndim == 1 else np.reshape(a, (len(a), -1, 1))[:, index]
        for a in wanted
    ]
    wanted += [h_tensor[:, order], h_global]
    assert_close(other.everything(), wanted)


def two_first_tensors(**fields):
    """Two runs that differ in the first tensor's first gradient alone."""
    # eta_rel is a second way from one tensor to the other, here closed.
    config = RuleConfig(relative_learning_rate=False, **fields)
    runs = [Run(start(), config=config) for _ in range(2)]
    first, second = draw_gradients(2)
    changed = first.copy()
    changed[:3] = -2 * changed[[1, 2, 0]]
    for run, g in zip(runs, (first, changed), strict=True):
        run.step(g)
        yield run
        run.step(second)


LAST = slice(-SIZES[-1], None)


def test_first_tensor_reaches_the_last_through_the_global_rnn():
    one, other = (two_first_tensors() for _ in range(2))
    one, other = two_first_tensors()
    assert one is not other
