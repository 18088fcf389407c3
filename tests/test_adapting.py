"""Runs may start from meta-parameters of a rule with other features."""

import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt.rule import meta_parameters, products
from hrnn_opt.rule import step as rule
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.segments import Segments
from hrnn_opt.rule.state import initial_state
from training.runs import adapting

OLD = dict.fromkeys(adapting.ADDED_IN_VERSION_3, False)
SIZES = (3, 1, 5)


def vector_of(config, seed=3):
    vector = meta_parameters.initial_vector(config, seed)
    noise = np.random.default_rng(seed).normal(0, 0.2, vector.shape)
    return (vector + noise).astype("float64")


def trajectory(config, vector):
    """theta after each of six steps with given gradients."""
    meta = products.from_vector(config, tf.constant(vector))
    segments = Segments(SIZES)
    state = initial_state(config, meta, segments)
    theta = phi = tf.zeros((sum(SIZES),), "float64")
    points = []
    for g in np.random.default_rng(1).normal(size=(6, sum(SIZES))):
        theta, phi, state = rule.step(
            config, meta, segments, state, theta, phi, tf.constant(g), 0.1
        )
        points.append(theta.numpy())
    return np.stack(points)


def test_new_features_start_without_effect():
    """Without attention, theta moves as it did together with phi."""
    found = RuleConfig(**OLD)
    config = RuleConfig(attention=False)
    vector = vector_of(found)
    adapted = adapting.adapted_vector(found, vector, config, seed=0)
    assert adapted.shape == (meta_parameters.size(config),)
    # Gradients are given, so it does not matter where they are taken.
    np.testing.assert_allclose(
        trajectory(config, adapted), trajectory(found, vector), 1e-12
    )


def test_what_both_rules_have_is_copied():
    found = RuleConfig(**OLD, shortcut=False)
    config = RuleConfig()
    vector = vector_of(found)
    old = adapting.arrays_of(found, vector)
    fresh = adapting.arrays_of(
        config, meta_parameters.initial_vector(config, 5)
    )
    adapted = adapting.adapted_vector(found, vector, config, seed=5)
    for name, array in adapting.arrays_of(config, adapted).items():
        source = old if name in old else fresh
        np.testing.assert_array_equal(array, source[name])


def test_other_sizes_are_refused():
    found, config = RuleConfig(tensor_units=4), RuleConfig()
    with pytest.raises(ValueError, match=r"units and timescales.*Received"):
        adapting.adapted_vector(found, vector_of(found), config, 0)


def test_a_checkpoint_becomes_the_start_of_a_run():
    found, config = RuleConfig(**OLD), RuleConfig(attention=False)
    average = vector_of(found).astype("float32")
    arrays = {"state/average": average, "state/inner_steps": np.asarray(7)}
    info = {
        "rule_version": 2,
        "rule_config": {
            name: value
            for name, value in found.to_dict().items()
            if name not in OLD
        },
    }
    assert adapting.found_config(info) == found
    start = adapting.adapted(arrays, info, config, 0)
    wanted = adapting.adapted_vector(found, average, config, 0)
    for name in ("vector", "average"):
        np.testing.assert_array_equal(start[f"state/{name}"], wanted)
    assert not np.any(start["state/mean"]) and not np.any(start["state/square"])
    assert start["state/iteration"] == 0 and start["state/inner_steps"] == 7
