"""The length of the first step, and the unit that makes it what users say.

    python -m training.first_step --weights=runs/wide/small.npz \\
        --out=runs/wide_unit/small.npz

An RNN learns what it multiplies the initial learning rate by, and it was meta-
trained where most of those are far too small: its first step may be many times
as long as the learning rate. The unit (`RuleConfig.length_unit`) takes that
out: with `learning_rate=1e-3` parameters first move by 1e-3, as with Adam.
"""

import json
import pathlib

import numpy as np
import tensorflow as tf
from absl import app, flags

from hrnn_opt.config import RuleConfig
from training import checkpoints
from training.rules import Hierarchical

WEIGHTS = flags.DEFINE_string(
    "weights", None, "A checkpoint of a run.", required=True
)
OUT = flags.DEFINE_string(
    "out", None, "The checkpoint with the unit; default: it is only printed."
)

SIZE = 10_000
"""Parameters of the problem on which the step is measured."""


def first_step(rule: Hierarchical, vector, seed: int = 0) -> float:
    """Root mean square of the first step, in learning rates.

    Of one tensor under gradients from a normal distribution; of others it is
    the same within a few per cent, since all that the rule senses of a first
    gradient is its sign.

    Args:
        rule: the learned rule.
        vector: its meta-parameters.
        seed: of the gradients.
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

    At most 1: a first step that is shorter than the learning rate stays so.
    """
    rule = Hierarchical(_rule_config(info))
    length = first_step(rule, arrays["state/average"])
    unit = min(1.0, rule.config.length_unit / length)
    unit = {"length_unit": float(f"{unit:.3g}")}
    last = info["stages"][-1]
    stage = last | {
        "from": int(arrays["state/iteration"]),
        "settings": last["settings"] | unit,
    }
    return info | {
        "rule_config": info["rule_config"] | unit,
        "config": info["config"] | unit,
        "stages": [*info["stages"], stage],
    }


def _rule_config(info: dict) -> RuleConfig:
    return RuleConfig.from_dict(info["rule_config"])


def main(argv):
    """Prints the step's length and the unit as JSON; writes the checkpoint."""
    if len(argv) > 1:
        raise app.UsageError(f"No arguments are taken. Received: {argv[1:]}")
    arrays, info = checkpoints.read(WEIGHTS.value)
    found = with_unit(arrays, info)
    lengths = [
        first_step(Hierarchical(_rule_config(i)), arrays["state/average"])
        for i in (info, found)
    ]
    if OUT.value:
        path = pathlib.Path(OUT.value)
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoints.write(path, arrays, found)
    names = ("first_step", "first_step_with_unit")
    result = dict(zip(names, lengths, strict=True))
    print(json.dumps(result | {"length_unit": found["config"]["length_unit"]}))


if __name__ == "__main__":
    app.run(main)
