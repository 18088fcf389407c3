"""What the optimizer remembers of a problem, and its initial values.

Shapes are those of `hrnn_opt.rule.step`. The state of the two upper levels is
`hierarchy.SharedState`.
"""

from typing import Any, NamedTuple

from keras import ops

from hrnn_opt.rule import coordinates
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.hierarchy import SharedState
from hrnn_opt.rule.products import Products
from hrnn_opt.rule.segments import Segments


class ParamState(NamedTuple):
    """What every parameter remembers."""

    h: Any  # [P, R, width, ...]
    g_bar: Any  # [S, R, width, ...]
    r: Any  # [S, R, width, ...]  sqrt(lambda)
    own_steps: Any  # [1, R, width, ...]  with a gradient; None without catch_up
    eta_bar: Any  # [1, R, width, ...], None without relative learning rate


class TensorState(NamedTuple):
    """Single numbers that every tensor remembers, [1, T, ...] each."""

    largest: Any  # see `features.largest_magnitude`
    steps: Any  # number of steps it has made
    log_step: Any  # mean of eta_bar after the last one
    population: Any  # number of elements that this is the mean of
    average: Any  # average of log_step over log time


class RuleState(NamedTuple):
    """The whole optimizer's memory of one problem (or of B problems)."""

    param: ParamState
    shared: SharedState
    tensors: TensorState
    skipped: Any  # [...] number of steps skipped for a non-finite gradient
    bases: Any = None  # of each tensor, see `coordinates`; None without


def initial_param_state(config: RuleConfig, meta: Products, shape):
    """State of parameters before the first step: arrays [F, *shape]."""

    def zeros(rows):
        return ops.zeros((rows, *shape), meta.h_param.dtype)

    h = ops.reshape(meta.h_param, (-1,) + (1,) * len(shape))
    return ParamState(
        ops.broadcast_to(h, (config.param_units, *shape)),
        zeros(config.timescales),
        zeros(config.timescales),
        zeros(1) if config.catch_up else None,
        zeros(1) if config.relative_learning_rate else None,
    )


def initial_shared_state(meta: Products, instances, tensors: int):
    """States of the Tensor RNNs [Q, T, ...] and of the Global RNN [G, 1, ...].

    `instances` is (B,) for B instances, () for one problem.
    """

    def repeat(vector, number):
        if vector is None:
            return None
        column = ops.reshape(vector, (-1,) + (1,) * (len(instances) + 1))
        shape = (vector.shape[0], number, *instances)
        return ops.broadcast_to(column, shape)

    return SharedState(repeat(meta.h_tensor, tensors), repeat(meta.h_global, 1))


def initial_state(
    config: RuleConfig,
    meta: Products,
    segments: Segments,
    instances=(),
) -> RuleState:
    """State before the first step; `instances` is (B,) for B instances."""
    shape = (segments.rows, segments.width, *instances)
    tensors = len(segments.sizes)
    zeros = ops.zeros((1, tensors, *instances), meta.h_param.dtype)
    return RuleState(
        initial_param_state(config, meta, shape),
        initial_shared_state(meta, instances, tensors),
        TensorState(*(zeros for _ in TensorState._fields)),
        ops.zeros(instances, "int32"),
        coordinates.initial(config, segments, instances, zeros.dtype),
    )
