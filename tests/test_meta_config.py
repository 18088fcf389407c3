"""The settings of meta-training, and the lengths that follow from them."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf

from problems import draws
from training.engine import lengths
from training.engine.config import LARGE, MetaConfig

CONFIG = MetaConfig()
MANY = 10_000


@pytest.mark.parametrize(
    "name, value, rule",
    [
        ("work", 0, "at least 1"),
        ("segment", 0, "at least 1"),
        ("curriculum", 0, "at least 1"),
        ("mean_steps", 0.0, "positive"),
        ("epsilon", -1.0, "positive"),
        ("meta_rate", 0.0, "positive"),
        ("clip", -1.0, "0 or positive"),
        ("clip_step", -0.1, "0 or positive"),
        ("mean_between", -1.0, "0 or positive"),
        ("averaging", 1.0, "in [0, 1)"),
        ("horizon_discount", 1.5, "in [0, 1]"),
        ("meta_optimizer", "sgd", "adam or rmsprop"),
        ("highest_rate", 1e-7, "at least lowest_rate=1e-06"),
    ],
)
def test_settings_out_of_range_are_named(name, value, rule):
    with pytest.raises(ValueError) as error:
        MetaConfig(**{name: value})
    assert str(error.value) == (
        f"Argument `{name}` must be {rule}. Received: {name}={value!r}"
    )


def test_whole_runs_are_neither_perturbed_nor_continued():
    for name in ("mean_between", "step_length_perturbation"):
        with pytest.raises(ValueError, match=f"`{name}` must be 0 with"):
            MetaConfig(evolved="step_bias", **{name: 0.5})
    MetaConfig(evolved="step_bias")


def test_json_and_back():
    config = MetaConfig(seed=3, mean_steps=12.5, log_objective=False)
    assert MetaConfig.from_json(config.to_json()) == config
    assert json.loads(config.to_json())["mean_steps"] == 12.5
    assert MetaConfig.from_json("{}") == CONFIG
    with pytest.raises(ValueError, match="Received: .'speed'"):
        MetaConfig.from_json('{"seed": 1, "speed": 2}')


def test_changed_settings_are_those_that_differ():
    assert CONFIG.changed() == {}
    changed = MetaConfig(seed=3, clip=2.0).changed()
    assert changed == {"seed": 3, "clip": 2.0}


def shares(total, horizon_discount):
    return lengths.shares(tf.range(total), total, horizon_discount)


def test_shares_by_hand():
    np.testing.assert_array_equal(shares(3, 0.0), [1, 1, 1])
    np.testing.assert_allclose(shares(4, 1.0), [1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(shares(4, 0.5), [1, 1, 1, 0.5])
    assert shares(8, 0.5).dtype == np.float32


def test_segments_between():
    config = MetaConfig(segment=50, mean_between=400.0)

    @tf.function(jit_compile=True, autograph=False)
    def drawn():
        return tf.map_fn(
            lambda n: lengths.segments_between(draws.fold(1, n), config),
            tf.range(MANY),
        )

    found = drawn().numpy()
    assert found.min() == 0
    # Standard error of the mean: 8 / sqrt(10,000).
    assert abs(found.mean() - 8.0) < 5 * 0.08
    never = MetaConfig(mean_between=0.0)
    assert lengths.segments_between((0, 1), never) == 0


def test_instances_side_by_side():
    config = MetaConfig(work=640)
    sizes = (2, 5, 20, 80, LARGE - 1, LARGE, 10_000)
    assert [config.instances(n) for n in sizes] == [128, 128, 32, 8, 4, 2, 2]
    assert all(config.instances(n) % 4 == 0 for n in range(1, 700))
    assert all(4 <= config.instances(n) <= 128 for n in range(1, 700))


def rounded(mean):
    """Mean and standard deviation of round(Exp(mean))."""
    k = np.arange(0, int(60 * mean) + 60)
    beyond = np.exp(-(k + 0.5) / mean)  # P(rounded > k)
    first, second = np.sum(beyond), np.sum((2 * k + 1) * beyond)
    return first, math.sqrt(second - first**2)


def drawn_segments(config):
    return tf.map_fn(
        lambda n: lengths.segments(draws.fold(1, n), config), tf.range(MANY)
    )


@pytest.mark.parametrize("steps, segment", [(200.0, 50), (10.0, 50)])
def test_segments_of_an_unroll(steps, segment):
    config = MetaConfig(mean_steps=steps, segment=segment)
    # 10,000 seeds, like those of meta-iterations.
    found = tf.function(lambda: drawn_segments(config))().numpy()
    mean, deviation = rounded(steps / segment)
    assert found.min() == 1
    error = 5 * deviation / math.sqrt(MANY)
    assert abs(found.mean() - 1 - mean) < error


def test_equal_lengths_are_all_the_mean():
    config = MetaConfig(heavy_tailed=False, mean_steps=200.0, mean_between=90.0)
    found = tf.function(lambda: drawn_segments(config))().numpy()
    assert set(found) == {5}
    assert lengths.segments_between((0, 1), config) == 2
    found = lengths.unrolls(4, 9, tf.constant(6.7), config).numpy()
    assert list(found) == [8] * 9


@pytest.mark.parametrize("mean", [0.5, 10.0, 50.0])
def test_unrolls_of_a_problem(mean):
    found = lengths.unrolls(4, MANY, mean, MetaConfig()).numpy()
    assert found.min() == 1 and len(set(found)) > 3
    wanted, deviation = rounded(mean)
    error = 5 * deviation / math.sqrt(MANY)
    assert abs(found.mean() - 1 - wanted) < error


def test_mean_unrolls_grows_evenly_in_its_logarithm():
    config = MetaConfig(
        first_mean_unrolls=4.0, mean_unrolls=64.0, curriculum=100
    )
    found = [
        float(lengths.mean_unrolls(config, n)) for n in (0, 25, 50, 100, 1000)
    ]
    assert found == pytest.approx([4, 8, 16, 64, 64])


def test_rates_are_log_uniform():
    found = lengths.rates(5, MANY, CONFIG).numpy()
    assert found.min() >= 1e-6 * (1 - 1e-5) and found.max() <= 1e-2 * 1.00001
    logs = np.log10(found)
    deviation = 4 / math.sqrt(12)
    assert abs(logs.mean() + 4) < 5 * deviation / math.sqrt(MANY)
    assert logs.std() == pytest.approx(deviation, rel=0.03)
