"""Meta-parameters of one rule as the start of another.

A campaign need not start from scratch when the rule has gained or lost a
feature: arrays that both rules have are copied by name, directions that no
longer exist are cut out, and new arrays start as in fresh meta-parameters.
"""

import numpy as np

from hrnn_opt.rule import meta_parameters
from hrnn_opt.rule.config import RuleConfig

ADDED_IN_VERSION_3 = ("lazy", "alignment", "age", "tensor_step")
"""Features that rules of earlier versions did not have."""

DIRECTIONS = ("direction_kernel", "shortcut_kernel")
"""Arrays with a row for theta and, with attention, one for phi."""


def found_config(info: dict) -> RuleConfig:
    """The rule config of a checkpoint of this or of an earlier version.

    Args:
        info: information of the checkpoint.
    """
    fields = dict(info["rule_config"])
    if info["rule_version"] < 3:
        fields = dict.fromkeys(ADDED_IN_VERSION_3, False) | fields
    return RuleConfig.from_dict(fields)


def adapted_vector(found: RuleConfig, vector, config: RuleConfig, seed: int):
    """Meta-parameters of the rule `found` for the rule `config`.

    Args:
        found: config of the rule that they belong to.
        vector: flat meta-parameters of that rule.
        config: config of the rule to start.
        seed: seed of the arrays that are drawn anew.

    Returns:
        Flat meta-parameters of the new rule.

    Raises:
        ValueError: the rules differ in more than features: an array that both
            have differs in size.
    """
    old = arrays_of(found, vector)
    new = arrays_of(config, meta_parameters.initial_vector(config, seed))
    for name, array in new.items():
        if name not in old:
            continue
        given = old[name]
        if name in DIRECTIONS:
            given = given[: len(array)]
        if given.shape != array.shape:
            raise ValueError(
                "The checkpoint's rule must have units and timescales as the "
                f"run's: {name} is to be {array.shape}. "
                f"Received: {given.shape}"
            )
        new[name] = given
    return np.concatenate([np.ravel(array) for array in new.values()])


def arrays_of(config: RuleConfig, vector) -> dict:
    """The named arrays that lie one after another in a flat vector."""
    arrays, start = {}, 0
    for name, shape in meta_parameters.shapes(config).items():
        stop = start + int(np.prod(shape))
        arrays[name] = np.reshape(vector[start:stop], shape)
        start = stop
    return arrays


def adapted(arrays: dict, info: dict, config: RuleConfig, seed: int) -> dict:
    """A checkpoint's arrays, as those of a run of another rule.

    The run begins at meta-iteration 0 from the running average; its optimizer
    has no memory yet, and problems are drawn anew.

    Args:
        arrays: arrays of the checkpoint.
        info: information of the checkpoint.
        config: config of the run's rule.
        seed: seed of the run.
    """
    average = arrays["state/average"]
    vector = adapted_vector(found_config(info), average, config, seed)
    vector = vector.astype("float32")
    zero = np.zeros_like(vector)
    return {
        "state/vector": vector,
        "state/average": vector.copy(),
        "state/mean": zero,
        "state/square": zero.copy(),
        "state/iteration": np.asarray(0),
        "state/updates": np.asarray(0),
        "state/inner_steps": arrays["state/inner_steps"],
    }
