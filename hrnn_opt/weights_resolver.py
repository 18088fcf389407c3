"""Finds the meta-parameters that an optimizer is made with."""

import os

import numpy as np

from hrnn_opt import weights as weights_files
from hrnn_opt.rule import meta_parameters
from hrnn_opt.rule.config import RuleConfig


def resolve(name, config, seed):
    """What the constructor's arguments stand for.

    Args:
        name: `weights` of `HierarchicalRNN`.
        config: a `RuleConfig`, its fields as a dict, or None.
        seed: seed of fresh meta-parameters, or None.

    Returns:
        Config, flat meta-parameters, sha256 (None for fresh ones) and seed.

    Raises:
        ValueError: an argument is invalid, or the file is damaged.
        FileNotFoundError: there is no such file.
    """
    if isinstance(config, dict):
        config = RuleConfig.from_dict(config)
    if config is not None and not isinstance(config, RuleConfig):
        raise ValueError(
            "Argument `config` must be a RuleConfig or None. "
            f"Received: config={config!r}"
        )
    if seed is not None and (type(seed) is not int or seed < 0):
        raise ValueError(
            "Argument `seed` must be an integer of at least 0, or None. "
            f"Received: seed={seed!r}"
        )
    if name is None:
        config = config or RuleConfig()
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        vector = meta_parameters.initial_vector(config, seed)
        return config, vector, None, seed
    if not isinstance(name, (str, os.PathLike)):
        raise ValueError(
            "Argument `weights` must be a name, a path or None. "
            f"Received: weights={name!r}"
        )
    loaded = weights_files.load(name)
    if config not in (None, loaded.config):
        raise ValueError(
            f"Argument `config` must equal that of weights={str(name)!r}, "
            f"{loaded.config}, or be None. Received: config={config}"
        )
    return loaded.config, loaded.vector, loaded.sha256, seed


def why_not_loadable(name, sha256):
    """The error for a weights file that is missing or changed, or None."""
    try:
        found = weights_files.load(name).sha256
    except (FileNotFoundError, ValueError) as error:
        return error
    if found == sha256:
        return None
    return ValueError(
        f"weights={name!r} no longer names the file this optimizer was made "
        f"with: expected sha256 {sha256}. Received: {found}"
    )
