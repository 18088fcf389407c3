"""Evolution strategies: which numbers move, and the estimate itself."""

import math

import numpy as np
import pytest

from hrnn_opt.rule import meta_parameters
from problems import Row, draws
from tests.meta_cases import FAMILY, TINY, Traced, assert_near, meta_vector
from training.engine.config import MetaConfig
from training.engine.evolution import EvolutionStep
from training.rules.hierarchical import Hierarchical
from training.runs.local import Run

COUNT, SEED = 4, 15
RULE = Hierarchical(TINY)
VECTOR = meta_vector(RULE)
SHAPES = meta_parameters.shapes(TINY)


class Tiny(MetaConfig):
    """Settings of a rule with few units and timescales."""

    rule_config = TINY


def settings(**changes):
    return Tiny(
        **{"segment": 3, "mean_steps": 9.0, "lowest_rate": 1e-3,
           "highest_rate": 0.1, "work": 8, "evolved": "step_bias"} | changes
    )  # fmt: skip


def made(**changes):
    config = settings(**changes)
    step = EvolutionStep(RULE, FAMILY, COUNT, config)
    step.unroll = Traced(
        RULE, FAMILY, config.segment, config.epsilon, keep_states=False
    )
    return step


def places(*names):
    """Where the numbers of some meta-parameters are in the vector."""
    parts = [
        np.full(math.prod(shape), name in names)
        for name, shape in SHAPES.items()
    ]
    return np.concatenate(parts)


def test_only_named_numbers_get_a_gradient():
    names = "step_bias", "shortcut_kernel"
    step = made(evolved=",".join(names))
    fresh = step.sampler.draw(VECTOR, 3, 10.0)
    gradient, _, statistics = step(VECTOR, fresh, SEED, 10.0)
    np.testing.assert_array_equal(gradient.numpy() != 0, places(*names))
    assert float(statistics.norm) == pytest.approx(np.linalg.norm(gradient))


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match="Received: nonsense, step$"):
        made(evolved="step_bias,step,nonsense")
    with pytest.raises(ValueError, match="names of meta-parameters"):
        made(evolved=",")


def test_estimate_from_two_runs_by_hand():
    """The mean over the second half, of the same instances and noise."""
    step = made()
    fresh = step.sampler.draw(VECTOR, 3, 10.0)
    got, new, statistics = step(VECTOR, fresh, SEED, 10.0)
    number = int(statistics.segments) // 2
    assert number > 2 and number % 2
    *_, seed = step._plan(draws.as_seed(SEED))
    seed, noise = draws.split(seed, 2)
    change = draws.normal(noise, VECTOR.shape) * places("step_bias")
    objectives = []
    for sign in (1, -1):
        vector = VECTOR + sign * 0.02 * change
        meta, values = RULE.unpack(vector), []
        state = step.sampler.begin(vector, fresh.data)
        for n in range(3 * number):
            state = step.unroll.step(meta, fresh.data, state, fresh.lr, seed, n)
            values.append(step.unroll.value(fresh.data, state)[0])
        objectives.append(np.mean(values[3 * (number // 2) :], axis=0))
    wanted = np.mean(objectives[0] - objectives[1]) / 0.04 * change
    assert_near(got, wanted, 1e-3)
    mean = np.mean(objectives, axis=0) - fresh.first.numpy()
    assert float(statistics.meta_loss) == pytest.approx(mean.mean(), rel=1e-4)
    assert np.all(new.left.numpy() == 0)


def test_where_steps_are_too_short_longer_ones_are_asked_for():
    step = made(lowest_rate=1e-6, highest_rate=1e-5, mean_steps=30.0)
    at = places("step_bias")
    for seed in range(3):
        fresh = step.sampler.draw(VECTOR, seed, 10.0)
        gradient, _, _ = step(VECTOR, fresh, seed, 10.0)
        assert gradient.numpy()[at] < 0


def test_an_instance_that_explodes_once_does_not_decide():
    """Differences are clipped at one nat: at most 1 / (2 s) e."""
    step = made(
        lowest_rate=1.0, highest_rate=10.0, mean_steps=20.0, evolution_scale=3.0
    )
    for seed in range(3):
        fresh = step.sampler.draw(VECTOR, seed, 10.0)
        gradient, _, _ = step(VECTOR, fresh, seed, 10.0)
        assert np.all(np.isfinite(gradient))
        noise = draws.split(step._plan(draws.as_seed(seed))[-1], 2)[1]
        change = draws.normal(noise, VECTOR.shape).numpy()
        most = np.abs(change) * places("step_bias") / 6
        assert np.all(np.abs(gradient) <= most * (1 + 1e-6))


def run(**changes):
    return Run(RULE, (Row("only", 1.0, FAMILY),), settings(**changes), VECTOR)


def test_a_run_moves_only_what_is_named_and_resumes():
    whole = run(clip=0.0)
    drawn = []
    for _ in range(4):
        whole.iterate()
        drawn.append(whole.pool["only"].first.numpy())
    moved = whole.state.vector != VECTOR.numpy()
    np.testing.assert_array_equal(moved, places("step_bias"))
    # New instances in every meta-iteration after the first draw.
    assert len({tuple(first) for first in drawn}) == 4
    half = run(clip=0.0)
    for _ in range(2):
        half.iterate()
    again = run(clip=0.0)
    again.restore(half.arrays())
    for _ in range(2):
        again.iterate()
    for name, value in whole.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], value)
