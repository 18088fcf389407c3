"""The work of workers and of the parameter server, in one process."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest
import tensorflow as tf

from problems import draws
from tests.meta_cases import TINY, Traced
from tests.test_meta_run import CONFIG, ROWS
from training.distributed.parameters import Counters, ServedParameters, Work
from training.distributed.run import AsynchronousRun
from training.engine import lengths, meta_optimizer
from training.engine.config import MetaConfig
from training.rules.hierarchical import Hierarchical
from training.runs import local

SETTINGS = MetaConfig(meta_rate=1e-2, meta_rate_decay=10)


STEPS, SECONDS = 3, 0.25


def vectors(count, size=7, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, size)).astype("float32")


class Served:
    """Meta-parameters whose `apply` can be called as a function."""

    def __init__(self, slots=1, **arguments):
        state = meta_optimizer.initial(vectors(1)[0])
        self.parameters = ServedParameters(SETTINGS, state, slots, **arguments)
        self.apply = tf.function(self.parameters.apply)
        self.unrolls = itertools.count()

    def __call__(self, gradient, version=None, slot=0, number=0, unroll=None):
        if version is None:
            version = self.parameters.state.updates.numpy()
        if unroll is None:
            unroll = next(self.unrolls)
        values = map(tf.constant, (version, slot, number, unroll, STEPS))
        work = Work(*values, tf.constant(SECONDS, tf.float64))
        return self.apply(tf.constant(gradient), work)


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, 1e-6, 1e-9)


@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
def test_an_update_is_that_of_one_machine(kind):
    config = dataclasses.replace(SETTINGS, meta_optimizer=kind)
    wanted = meta_optimizer.initial(vectors(1)[0])
    parameters = ServedParameters(config, wanted)
    apply = tf.function(parameters.apply)
    update = meta_optimizer.Updater(config)
    for k, gradient in enumerate(vectors(20, seed=1)):
        outcome = apply(gradient, Work(k, 0, 0, k, STEPS, SECONDS))
        wanted = update(wanted, gradient)
        assert (outcome.iteration, outcome.staleness) == (k, 0)
    found, counters = parameters.snapshot()
    assert_same(found, wanted)
    assert counters == Counters(inner_steps=20 * STEPS, seconds=20 * SECONDS)


def test_no_update_is_lost_between_threads():
    """All have the same gradient, so their order does not matter."""
    served, count = Served(slots=8), 50
    gradient = vectors(1, seed=1)[0]
    served(gradient)

    def work(slot):
        for k in range(count):
            served(gradient, slot=slot, number=slot, unroll=k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = meta_optimizer.initial(vectors(1)[0])
    for _ in range(8 * count + 1):
        wanted = meta_optimizer.update(SETTINGS, wanted, gradient)
    found, _ = served.parameters.snapshot()
    assert found.updates == found.iteration == 8 * count + 1
    assert_same(found, wanted)


def test_staleness_counts_updates_since_the_reading():
    served = Served()
    vector, version = served.parameters.read()
    np.testing.assert_array_equal(vector, vectors(1)[0])
    for wanted in range(4):
        assert served(np.ones(7, "float32"), version).staleness == wanted
    # An update that changed nothing does not make others stale.
    served(np.zeros(7, "float32"))
    assert served(np.ones(7, "float32"), version).staleness == 4


def test_old_updates_are_dropped_and_counted():
    served = Served(max_staleness=1)
    ones = np.ones(7, "float32")
    assert [bool(served(ones, 0).late) for _ in range(4)] == [
        False, False, True, True,
    ]  # fmt: skip
    state, counters = served.parameters.snapshot()
    assert (state.iteration, state.updates) == (4, 2)
    assert (counters.late, counters.unusable, counters.repeated) == (2, 0, 0)
    assert (counters.staleness, counters.staleness_max) == (0 + 1 + 2 + 2, 2)
    twice = meta_optimizer.initial(vectors(1)[0])
    for _ in range(2):
        twice = meta_optimizer.update(SETTINGS, twice, ones)
    assert_same(state[:4], twice[:4])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_what_is_not_usable_changes_nothing(bad):
    served = Served()
    served(vectors(1, seed=1)[0])
    before, _ = served.parameters.snapshot()
    gradient = np.zeros(7, "float32")
    gradient[3] = bad
    served(gradient)
    after, counters = served.parameters.snapshot()
    assert (counters.late, counters.unusable, counters.repeated) == (0, 1, 0)
    assert after.iteration == before.iteration + 1
    for a, b in zip(after[:4], before[:4], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_meta_iteration_that_begins_again_is_counted_as_repeated():
    served, ones = Served(slots=2), np.ones(7, "float32")
    for slot, number, unroll in [
        (0, 5, 0), (0, 5, 1), (1, 6, 0), (0, 5, 0), (0, 5, 1), (0, 5, 2),
        (0, 7, 0), (1, 6, 1),
    ]:  # fmt: skip
        served(ones, slot=slot, number=number, unroll=unroll)
    assert served.parameters.snapshot()[1].repeated == 2


LIMIT = 5
"""Number of unrolls; later ones differ more, since they amplify rounding."""


def made(config=CONFIG, rows=ROWS, **arguments):
    run = AsynchronousRun(
        Hierarchical(TINY), rows, config, limit=LIMIT, **arguments
    )
    for one in run.meta_iterations.values():
        one.step.unroll = Traced(
            run.rule, one.step.family, config.segment, config.epsilon,
            clip_step=config.clip_step,
        )  # fmt: skip
    return run


def some(run, count):
    """The first results; the rest is discarded."""
    run.start()
    found = []
    while len(found) < count:
        if result := run.results(60.0):
            found.append(result)
    list(run.finish())
    return found


def test_a_trial_changes_nothing():
    run = made(rows=ROWS[:1])
    one = run.meta_iterations[ROWS[0].name]
    before, _ = run.parameters.snapshot()
    one.warm_up()
    after, counters = run.parameters.snapshot()
    assert_same(after, before)
    assert counters == Counters()
    unrolls = one.unpack(one.traced(draws.as_seed(1), 0, 0, 0).numpy())
    assert len(unrolls.seconds) == unrolls.statistics.segments[0] == 1
    # A slot that was tried is as good as new.
    one.traced(draws.as_seed(1), 0, 0, 2)
    assert run.parameters.snapshot()[1].repeated == 0


@pytest.fixture(scope="module")
def done():
    run = made()
    return run, some(run, 6)


@pytest.mark.slow
def test_a_run_does_what_the_numbers_of_its_meta_iterations_say(done):
    """Compared with the same steps made from the parts of one machine."""
    run, found = done
    state = meta_optimizer.initial(
        np.asarray(Hierarchical(TINY).initial_meta(CONFIG.seed), np.float32)
    )
    for number, finished in enumerate(found):
        row = local.choose(ROWS, CONFIG.seed, number)
        assert finished.row is row
        step = run.meta_iterations[row.name].step
        seeds = draws.split(draws.fold(CONFIG.seed, number), 3)
        mean = lengths.mean_unrolls(CONFIG, state.iteration)
        count = min(LIMIT, int(lengths.unrolls(seeds[1], 1, mean, CONFIG)[0]))
        assert len(finished.unrolls.seconds) == count
        vector = tf.constant(np.asarray(state.vector))
        pool = step.sampler.draw(vector, seeds[0], mean)
        pool = pool._replace(left=tf.fill((step.count,), count))
        for k in range(count):
            gradient, pool, statistics = step(
                tf.constant(np.asarray(state.vector)), pool,
                draws.fold(seeds[2], k), mean,
            )  # fmt: skip
            state = meta_optimizer.update(CONFIG, state, gradient)
            np.testing.assert_allclose(
                [x[k] for x in finished.unrolls.statistics],
                [float(x) for x in statistics], 1e-3, 1e-5,
            )  # fmt: skip
    iterations = np.concatenate([f.unrolls.outcome.iteration for f in found])
    np.testing.assert_array_equal(iterations, range(int(state.iteration)))
    assert not np.any([np.any(f.unrolls.outcome.staleness) for f in found])
    assert all((f.unrolls.seconds > 0).all() for f in found)


@pytest.mark.slow
def test_a_run_goes_on_from_its_arrays(done):
    run, _ = done
    run.pull()
    arrays = run.arrays()
    other = made()
    other.restore(arrays)
    assert other.number == run.number and other.state.iteration > 6
    other.pull()
    assert_same(other.state, run.state)
    assert other.arrays().keys() == arrays.keys()
    # A run on one machine also accepts them, and returns them.
    one = local.Run(Hierarchical(TINY), ROWS, CONFIG)
    one.restore(arrays)
    assert_same(one.state, run.state)
    made().restore(one.arrays())
    before = dataclasses.replace(CONFIG, seed=9)
    assert before != CONFIG
    with pytest.raises(ValueError, match="of this rule"):
        AsynchronousRun(Hierarchical(), ROWS, CONFIG).restore(arrays)


@pytest.mark.slow
def test_counters_are_kept(done):
    run, _ = done
    run.pull()
    given = run.counters._replace(late=4, staleness=7)
    assert given.inner_steps > 0 and given.seconds > 0
    run.counters = given
    other = made()
    other.restore(run.arrays())
    other.pull()
    assert other.counters == given


def test_a_lost_server_ends_the_run():
    class Lost:
        def schedule(self, function, args):
            raise tf.errors.UnavailableError(None, None, "gone")

    run = made()
    run._coordinator = Lost()
    run.start()
    with pytest.raises(tf.errors.UnavailableError):
        run.results(30.0)


def test_a_failed_thread_is_no_silence(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    run = made()
    run._coordinator = None
    run.start()
    with pytest.raises(RuntimeError, match="handed out"):
        while True:
            run.results(0.1)
