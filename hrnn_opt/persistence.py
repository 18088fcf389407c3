"""What a saved model contains besides the optimizer's variables.

Keras stores optimizer state by position, so a file of another state layout,
rule version or config would silently load into the wrong places.
"""

import json
import warnings
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from hrnn_opt.model import chunks, tables
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


class _Entry(NamedTuple):
    """What one array of a file belongs to."""

    variable: Any
    shape: tuple
    piece: chunks.Piece | None = None  # of a table


def _entries(variables, slots) -> list[_Entry]:
    """A file's arrays. The state of a table is saved in pieces, as any is."""
    found = {}
    if slots is not None:
        found = {id(slots.states[t][0]): t for t in slots.tables}
    entries = []
    for variable in variables:
        t = found.get(id(variable))
        if t is None:
            entries.append(_Entry(variable, tuple(variable.shape)))
            continue
        rows = variable.shape[1] // slots.tables[t]
        entries += [
            _Entry(variable, (rows, piece.size), piece)
            for piece in chunks.cut(t, slots.sizes[t])
        ]
    return entries


def write_variables(store, variables, slots):
    """Adds arrays by position, the same whether or not there are tables."""
    for number, entry in enumerate(_entries(variables, slots)):
        value = entry.variable
        if entry.piece is not None:
            value = slots.piece(entry.piece)
        store[str(number)] = ops.convert_to_numpy(value)


def read_variables(store, variables, slots):
    """The inverse of `write_variables`."""
    pieces = {}
    for number, entry in enumerate(_entries(variables, slots)):
        value = store[str(number)]
        if entry.piece is None:
            entry.variable.assign(value)
        else:
            pieces.setdefault(entry.piece.tensor, []).append(np.asarray(value))
    for t, own in pieces.items():
        state = tables.from_pieces(own, slots.tables[t])
        slots.states[t][0].assign(state)


def check(
    store, name: str, config: RuleConfig, variables, slots, state_dtype: str
) -> bool:
    """Whether the store can be loaded into `variables`.

    Args:
        store: what a saved file holds for this optimizer.
        name: name of the optimizer, for messages.
        config: config of the optimizer.
        variables: variables of the optimizer, in order.
        slots: slots of the optimizer, None if it is not built.
        state_dtype: state dtype of the optimizer.

    Returns:
        False, after a warning, for the state of a different optimizer or of an
        optimizer not built yet (as Keras does).

    Raises:
        ValueError: the version, config or shapes differ. Nothing was loaded.
    """
    keys, entries = set(store.keys()), _entries(variables, slots)
    if HEADER not in keys or len(keys) != len(entries) + 1:
        warnings.warn(
            f"Skipping the state of optimizer '{name}': it has "
            f"{len(entries)} entries, the file {len(keys)} entries"
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
    for k, entry in enumerate(entries):
        shape = tuple(store[str(k)].shape)
        if shape != entry.shape:
            raise ValueError(
                f"The saved state of optimizer '{name}' does not fit this "
                f"model: expected shape {entry.shape} for "
                f"{entry.variable.path}. Received: {shape}"
            )
    return True
