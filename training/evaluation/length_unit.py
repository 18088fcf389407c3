"""The unit of step lengths, which makes first steps equal the learning rate.

An RNN learns by which factor to multiply the initial learning rate. Since most
of these were far too small in meta-training, its first step may be many times
as long as the learning rate. The unit (`RuleConfig.length_unit`) removes this
factor: parameters first move by the learning rate, as with Adam.
"""

import numpy as np
import tensorflow as tf

from hrnn_opt.rule.config import RuleConfig
from training.rules.hierarchical import Hierarchical

SIZE = 10_000
"""Number of parameters of the problem on which the step is measured."""


def first_step(rule: Hierarchical, vector, seed: int = 0) -> float:
    """Root mean square of the first step, in learning rates.

    It is measured on one tensor, with normally distributed gradients; for
    others it is the same within a few per cent, since all that the rule sees of
    a first gradient is its sign.

    Args:
        rule: the learned rule.
        vector: its meta-parameters.
        seed: seed of the gradients.
    """
    gradient = np.random.default_rng(seed).normal(size=(1, SIZE))
    gradient = tf.constant(gradient, "float32")
    meta = rule.unpack(tf.constant(vector, "float32"))
    theta = tf.zeros((1, SIZE))
    state = rule.initial_state(meta, (SIZE,), theta)
    state = rule.step(meta, (SIZE,), state, gradient, tf.ones((1,)))
    return float(tf.sqrt(tf.reduce_mean(rule.point(state) ** 2)))


def with_unit(arrays: dict, info: dict) -> dict:
    """A checkpoint's info, with the unit of its averaged meta-parameters.

    It is at most 1: a first step shorter than the learning rate stays so.
    """
    found = rule(info)
    length = first_step(found, arrays["state/average"])
    unit = min(1.0, found.config.length_unit / length)
    unit = {"length_unit": float(f"{unit:.3g}")}
    last = dict(info["stages"][-1])
    last.pop("adjusted", None)
    stage = last | {
        "from": int(arrays["state/iteration"]),
        "settings": last["settings"] | unit,
    }
    return info | {
        "rule_config": info["rule_config"] | unit,
        "config": info["config"] | unit,
        "stages": [*info["stages"], stage],
    }


def rule(info: dict) -> Hierarchical:
    """The rule of a checkpoint, from its info."""
    return Hierarchical(RuleConfig.from_dict(info["rule_config"]))
