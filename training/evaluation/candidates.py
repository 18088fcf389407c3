"""Loads the learned optimizer to evaluate, by the name of its weights."""

import hashlib
import pathlib
import tempfile

from hrnn_opt import HierarchicalRNN, RuleConfig, weights
from hrnn_opt.rule.config import RULE_VERSION
from training.common import checkpoints
from training.rules.hierarchical import Hierarchical

NUMBERS = {
    "negligible": "negligible",
    "tensor_spread": "spread",
    "tensor_growth": "growth",
    "tensor_decay": "decay",
    "catch_up": "catch up",
    "step_spread": "step spread",
    "wide_inputs": "wide",
    "eigenbasis": "eigenbasis",
    "basis_length": "basis length",
    "length_unit": "unit",
}
"""Numbers of the rule, as digests name them."""


def load(name: str):
    """The rule and the meta-parameters of weights or of a checkpoint.

    Args:
        name: name of weights in the package, or the path of a weights file or
            of a checkpoint.
    """
    path = pathlib.Path(name)
    if path.suffix == ".npz" and path.is_file():
        try:
            arrays, info = checkpoints.read(path)
            config = RuleConfig.from_dict(info["rule_config"])
            return Hierarchical(config), arrays["state/average"]
        except (ValueError, KeyError):
            pass  # Not a checkpoint: a weights file, or nothing.
    found = weights.load(name)
    return Hierarchical(found.config), found.vector


def optimizer(rule: Hierarchical, vector, **arguments) -> HierarchicalRNN:
    """A Keras optimizer with given meta-parameters."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "evaluated.npz"
        weights.save(path, rule.config, vector)
        return HierarchicalRNN(weights=path, **arguments)


def digest(rule, vector) -> str:
    """A digest of the rule and its meta-parameters, for the keys of jobs."""
    version = f"rule {RULE_VERSION}"
    if isinstance(rule, Hierarchical):
        for name, label in NUMBERS.items():
            value = getattr(rule.config, name)
            if value != getattr(RuleConfig, name):
                version += f", {label} {value}"
    content = version.encode() + vector.tobytes()
    return hashlib.sha256(content).hexdigest()[:12]
