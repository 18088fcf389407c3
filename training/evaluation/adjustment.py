"""Changes of a few meta-parameters by hand, without derivatives.

Truncated derivatives prefer steps that are too short: where there is noise, a
shorter step pays at once, a longer one later than any unroll reaches. What that
costs is decided by few numbers, such as `step_bias`, the constant of every
change of a step length, and is found on whole runs (`evaluate practice`).
"""

import numpy as np

from hrnn_opt.rule import meta_parameters
from hrnn_opt.rule.config import RuleConfig
from problems.registry import unknown

VECTORS = ("state/vector", "state/average")
"""Meta-parameters of a checkpoint: the last ones and their running average."""


def adjust(arrays: dict, info: dict, add: dict, multiply: dict):
    """A checkpoint's arrays and info with some meta-parameters changed.

    Args:
        arrays: arrays of the checkpoint.
        info: its info.
        add: numbers to add, by the names of `meta_parameters.shapes`.
        multiply: factors, which are applied first.

    Raises:
        ValueError: an unknown name.
    """
    shapes = meta_parameters.shapes(RuleConfig.from_dict(info["rule_config"]))
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
    stage = info["stages"][-1] | {
        "from": int(arrays["state/iteration"]),
        "adjusted": {"add": add, "multiply": multiply},
    }
    return arrays | changed, info | {"stages": [*info["stages"], stage]}
