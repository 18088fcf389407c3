"""The meta-parameters: names, shapes, initial values, and one flat vector.

The vector is what is stored, saved and meta-trained; `unflatten` gives the
named record that the rule reads.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.gru import GRUParameters


class MetaParameters(NamedTuple):
    """Every learned number of the optimizer; None where a feature is off."""

    param_gru: GRUParameters  # Eq. 10
    tensor_gru: GRUParameters | None  # Eq. 11
    global_gru: GRUParameters | None  # Eq. 12
    signal_kernel: Any  # of the Tensor RNN [3Q, signals], see `alignment`
    tensor_to_param: Any  # A_t [3P, Q]
    global_to_param: Any  # A_g [3P, G]
    global_to_tensor: Any  # B_g [3Q, G]
    logit_kernel: Any  # W_b [2, P]
    logit_bias: Any  # b_b [2]
    direction_kernel: Any  # W_d [directions, P]
    shortcut_kernel: Any  # U_d [directions, S]
    step_kernel: Any  # w_e [1, P]
    step_bias: Any  # b_e [1]
    tensor_step_kernel: Any  # w_T [1, Q]
    step_momentum: Any  # logit of gamma, Eq. 8 [1]
    attention_offset: Any  # c, Eq. 9 [1]
    h_param: Any  # initial states [P], [Q], [G]
    h_tensor: Any
    h_global: Any


def _normal(rows: int, fan_in: int):
    """N(0, (0.5 / sqrt(fan_in))^2)."""
    return (rows, fan_in), lambda rng, shape: rng.normal(
        0, 0.5 / math.sqrt(fan_in), shape
    )


def _constant(shape: tuple, *values: float):
    return shape, lambda rng, shape: np.broadcast_to(values, shape)


def _hidden(units: int):
    return (units,), lambda rng, shape: rng.uniform(-1, 1, shape)


def _gru(units: int, inputs: int) -> GRUParameters:
    def bias(rng, shape):
        # Gate biases of 2.2: a fresh cell remembers.
        return np.where(np.arange(3 * units) < 2 * units, 2.2, 0.0)

    return GRUParameters(
        _normal(3 * units, inputs),
        _normal(2 * units, units),
        _normal(units, units),
        ((3 * units,), bias),
    )


def _table(config: RuleConfig) -> MetaParameters:
    """(shape, sampler) of every array, as a record."""
    p, q, g = config.param_units, config.tensor_units, config.global_units
    s, d = config.timescales, config.directions
    tensor, both = config.tensor_rnn, config.global_rnn
    length = config.direction_length
    return MetaParameters(
        param_gru=_gru(p, config.inputs),
        tensor_gru=_gru(q, p + config.inputs) if tensor else None,
        global_gru=_gru(g, q) if both else None,
        # Signals and the readout of a tensor's step start without effect.
        signal_kernel=(
            _constant((3 * q, config.signals), 0.0) if config.signals else None
        ),
        tensor_to_param=_normal(3 * p, q) if tensor else None,
        global_to_param=_normal(3 * p, g) if both else None,
        global_to_tensor=_normal(3 * q, g) if both else None,
        logit_kernel=_normal(2, p),
        logit_bias=_constant((2,), 2.2, 3.2),
        direction_kernel=_normal(d, p),
        # A fresh optimizer descends along the mean rescaled gradient.
        shortcut_kernel=_constant((d, s), -1 / s) if config.shortcut else None,
        step_kernel=_constant((1, p), 0.0) if length else None,
        step_bias=_constant((1,), 0.0) if length else None,
        tensor_step_kernel=(
            _constant((1, q), 0.0) if config.tensor_step else None
        ),
        step_momentum=(
            _constant((1,), 3.2) if config.relative_learning_rate else None
        ),
        attention_offset=(
            _constant((1,), 0.0) if config.attention and length else None
        ),
        h_param=_hidden(p),
        h_tensor=_hidden(q) if tensor else None,
        h_global=_hidden(g) if both else None,
    )


def _entries(config: RuleConfig) -> list:
    """The table's (name, shape, sampler) in the order of the flat vector."""
    entries = []
    for name, entry in _table(config)._asdict().items():
        if isinstance(entry, GRUParameters):
            entries += [
                (f"{name}/{part}", *pair)
                for part, pair in entry._asdict().items()
            ]
        elif entry is not None:
            entries.append((name, *entry))
    return entries


def shapes(config: RuleConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array, in the order of the flat vector."""
    return {name: shape for name, shape, _ in _entries(config)}


def size(config: RuleConfig) -> int:
    """Length of the flat vector."""
    return sum(math.prod(shape) for shape in shapes(config).values())


def initial_vector(config: RuleConfig, seed: int) -> np.ndarray:
    """Untrained meta-parameters (float32, flat), drawn from `seed`."""
    rng = np.random.default_rng(seed)
    parts = [
        np.ravel(sample(rng, shape)) for _, shape, sample in _entries(config)
    ]
    return np.concatenate(parts).astype("float32")


def unflatten(config: RuleConfig, vector) -> MetaParameters:
    """The named record whose arrays lie one after another in `vector`."""
    wanted = shapes(config)
    ends = np.cumsum([math.prod(shape) for shape in wanted.values()])
    # One operation, not three for each array: this is traced often.
    parts = ops.split(vector, ends[:-1].tolist())
    arrays = {
        name: part if len(shape) == 1 else ops.reshape(part, shape)
        for (name, shape), part in zip(wanted.items(), parts, strict=True)
    }
    fields = {}
    for field in MetaParameters._fields:
        parts = [f"{field}/{part}" for part in GRUParameters._fields]
        if parts[0] in arrays:
            fields[field] = GRUParameters(*(arrays[part] for part in parts))
        else:
            fields[field] = arrays.get(field)
    return MetaParameters(**fields)
