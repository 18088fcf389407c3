"""Changes of a few meta-parameters by hand, without derivatives.

Truncated derivatives prefer steps that are too short: where there is noise, a
shorter step pays at once, a longer one later than any unroll reaches. What that
costs is decided by few numbers, such as `step_bias`, the constant of every
change of a step length, and is found on whole runs (`evaluate practice`).
"""

import dataclasses

import numpy as np

from hrnn_opt.rule import meta_parameters
from hrnn_opt.rule.config import RuleConfig
from problems.registry import unknown

VECTORS = ("state/vector", "state/average")
"""Meta-parameters of a checkpoint: the last ones and their running average."""


def adjust(
    arrays: dict,
    info: dict,
    add: dict,
    multiply: dict,
    rule: dict | None = None,
):
    """A checkpoint's arrays and info with some meta-parameters changed.

    Args:
        arrays: arrays of the checkpoint.
        info: its info.
        add: numbers to add, by the names of `meta_parameters.shapes`.
        multiply: factors, which are applied first.
        rule: new numbers of the rule's config, on which meta-parameters do not
            depend, such as `tensor_spread`.

    Raises:
        ValueError: an unknown name, or a number that its field does not allow.
    """
    rule = rule or {}
    config = RuleConfig.from_dict(info["rule_config"])
    numbers = [f.name for f in dataclasses.fields(config) if f.type is float]
    for name in rule:
        if name not in numbers:
            raise ValueError(unknown("rule", name, tuple(numbers)))
    config = dataclasses.replace(config, **rule)
    shapes = meta_parameters.shapes(config)
    for argument, names in (("add", add), ("multiply", multiply)):
        for name in names:
            if name not in shapes:
                raise ValueError(unknown(argument, name, tuple(shapes)))
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    factors = np.repeat([multiply.get(name, 1.0) for name in shapes], sizes)
    shifts = np.repeat([add.get(name, 0.0) for name in shapes], sizes)
    changed = {
        name: (factors * arrays[name] + shifts).astype(arrays[name].dtype)
        for name in VECTORS
    }
    told = {"add": add, "multiply": multiply}
    last = info["stages"][-1]
    stage = last | {
        "from": int(arrays["state/iteration"]),
        "settings": last["settings"] | rule,
        "adjusted": told | ({"rule": rule} if rule else {}),
    }
    return arrays | changed, info | {
        "rule_config": config.to_dict(),
        "config": info["config"] | rule,
        "stages": [*info["stages"], stage],
    }
