"""What stands in a saved model beside the optimizer's variables.

Keras stores optimizer state by position, so a file of another state layout,
rule version or config would load into the wrong places, silently.
"""

import json
import warnings

import numpy as np

from hrnn_opt.model.slots import STATE_VERSION
from hrnn_opt.rule.config import RULE_VERSION, RuleConfig

HEADER = "hrnn_opt"


def _header(config: RuleConfig) -> dict:
    return {
        "state_version": STATE_VERSION,
        "rule_version": RULE_VERSION,
        "config": config.to_dict(),
    }


def write_header(store, config: RuleConfig, guard: bool, state_dtype: str):
    """Adds versions and config to the store, as the bytes of a JSON text."""
    header = _header(config) | ({"guard": True} if guard else {})
    if state_dtype != "float32":
        header["state_dtype"] = state_dtype
    text = json.dumps(header, sort_keys=True)
    store[HEADER] = np.frombuffer(text.encode(), "uint8")


def read_header(store) -> dict:
    """What `write_header` wrote; empty for another optimizer's state."""
    if HEADER not in set(store.keys()):
        return {}
    return json.loads(bytes(np.asarray(store[HEADER])).decode())


def is_guarded(store) -> bool:
    """Whether a guard's variables are the last ones of the saved state."""
    return bool(read_header(store).get("guard"))


def check(
    store, name: str, config: RuleConfig, variables, state_dtype: str
) -> bool:
    """Whether the store can be loaded into `variables`.

    Args:
        store: what a saved file holds for this optimizer.
        name: name of the optimizer, for messages.
        config: config of the optimizer.
        variables: variables of the optimizer, in order.
        state_dtype: state dtype of the optimizer.

    Returns:
        False, after a warning, for the state of a different optimizer or of an
        optimizer not built yet (as Keras does).

    Raises:
        ValueError: another version, config, or shapes. Nothing was loaded.
    """
    keys = set(store.keys())
    if HEADER not in keys or len(keys) != len(variables) + 1:
        warnings.warn(
            f"Skipping the state of optimizer '{name}': it has "
            f"{len(variables)} variables, the file {len(keys)} entries"
            f"{'' if HEADER in keys else ' of a different optimizer'}. Is the "
            "optimizer built, and the model the same?",
            stacklevel=3,
        )
        return False
    found = {"state_dtype": "float32"} | read_header(store)
    expected = _header(config) | {"state_dtype": state_dtype}
    for key, value in expected.items():
        if found.get(key) != value:
            raise ValueError(
                f"The saved state of optimizer '{name}' has another {key}: "
                f"expected {value}. Received: {found.get(key)}"
            )
    for k, variable in enumerate(variables):
        shape = tuple(store[str(k)].shape)
        if shape != tuple(variable.shape):
            raise ValueError(
                f"The saved state of optimizer '{name}' does not fit this "
                f"model: expected shape {tuple(variable.shape)} for "
                f"{variable.path}. Received: {shape}"
            )
    return True
