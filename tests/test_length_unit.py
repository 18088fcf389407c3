"""The first step's length, and the unit that makes it the learning rate."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from hrnn_opt import HierarchicalRNN, RuleConfig, weights
from hrnn_opt.rule import meta_parameters
from training.engine.config import MetaConfig
from training.evaluation.length_unit import first_step, with_unit
from training.rules.hierarchical import Hierarchical

STAGE = {"from": 0, "rule_version": 2, "settings": {"clip": 2.0}}


def checkpoint(config, growth):
    """Checkpoint of a rule with steps e^growth times an untrained one's."""
    vector = Hierarchical(config).initial_meta(0)
    offset = vector_slice(config, "step_bias")
    vector[offset] += growth
    arrays = {"state/average": vector, "state/iteration": np.asarray(7)}
    info = {
        "rule_config": config.to_dict(),
        "config": json.loads(MetaConfig().to_json()),
        "stages": [STAGE],
    }
    return arrays, info


def vector_slice(config, name):
    """The slice of an array in the flat meta-parameters."""
    start = 0
    for found, shape in meta_parameters.shapes(config).items():
        size = int(np.prod(shape))
        if found == name:
            return slice(start, start + size)
        start += size
    raise KeyError(name)


def test_the_unit_makes_the_first_step_the_learning_rate():
    arrays, info = checkpoint(RuleConfig(), 3.0)
    rule = Hierarchical(RuleConfig())
    length = first_step(rule, arrays["state/average"])
    assert length == pytest.approx(np.exp(3.0), rel=0.2)
    found = with_unit(arrays, info)
    config = RuleConfig.from_dict(found["rule_config"])
    assert config.length_unit == pytest.approx(1 / length, rel=0.01)
    assert found["config"]["length_unit"] == config.length_unit
    assert found["stages"] == [
        STAGE,
        STAGE
        | {
            "from": 7,
            "settings": {"clip": 2.0, "length_unit": config.length_unit},
        },
    ]
    again = first_step(Hierarchical(config), arrays["state/average"])
    assert again == pytest.approx(1.0, rel=0.01)
    # Measuring again gives the same: the unit is not applied twice.
    assert with_unit(arrays, found)["config"] == found["config"]


def test_a_first_step_that_is_shorter_stays_so():
    arrays, info = checkpoint(RuleConfig(), -3.0)
    assert (
        "length_unit"
        not in RuleConfig.from_dict(
            with_unit(arrays, info)["rule_config"]
        ).to_dict()
    )


@pytest.mark.parametrize("name", weights.names())
def test_shipped_weights_first_move_by_the_learning_rate(name):
    rng = np.random.default_rng(0)
    shapes = ((30, 20), (50,), (3, 3, 4, 8))
    variables = [keras.Variable(rng.normal(size=s)) for s in shapes]
    before = [v.numpy() for v in variables]
    optimizer = HierarchicalRNN(1e-3, weights=name)
    grads = [
        tf.constant(10.0**k * rng.normal(size=s), "float32")
        for k, s in enumerate(shapes)
    ]
    optimizer.apply(grads, variables)
    optimizer.swap_to_theta()
    for then, v in zip(before, variables, strict=True):
        rms = np.sqrt(np.mean((v.numpy() - then) ** 2))
        assert rms == pytest.approx(1e-3, rel=0.05)
