"""The part of a step on a model that concerns tensors as wholes.

It is small, but consists of hundreds of operations, so it is traced once for
each number of tensors: the next model's first step does not wait for it.
"""

import functools
from typing import Any, NamedTuple

from keras import ops

from hrnn_opt import backend
from hrnn_opt.model import rates
from hrnn_opt.rule import features, hierarchy, levels
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.hierarchy import SharedState
from hrnn_opt.rule.numerics import select
from hrnn_opt.rule.products import from_vector
from hrnn_opt.rule.state import TensorState, initial_shared_state


class Begun(NamedTuple):
    """What is known before the element-wise part of a step, of T targets."""

    shared: SharedState
    tensors: TensorState
    rates: rates.Rates  # of all tensors
    mean_log_step: Any  # scalar
    largest: Any  # [1, T], or None
    bias: Any  # [3P or 3P + 1, T]; [1, T] without Tensor RNN
    excess: Any  # [1, T]
    rarity: Any  # [2, T], or None
    still: Any  # boolean, whether the state must not change


@functools.cache
def traced(function, config: RuleConfig):
    """`function` for one config, traced once for each number of tensors."""
    return backend.trace_function(functools.partial(function, config))


def begin(
    config: RuleConfig,
    meta_vector,
    numbers,
    state,
    old_rates,
    magnitudes,
    sizes,
    lr,
) -> Begun:
    """Begins a step: rates, magnitudes and the upper levels.

    Args:
        config: the features in use.
        meta_vector: flat meta-parameters.
        numbers: numbers of the tensors that take part [T].
        state: h_tensor, h_global and the rows of `TensorState`, of all tensors.
        old_rates: rates of all tensors.
        magnitudes: mean |g| of the targets [T], or None.
        sizes: number of parameters of each target [T].
        lr: learning rate, a scalar.
    """
    meta = from_vector(config, meta_vector)
    h_tensor, h_global, tensors = state
    all_tensors = TensorState(*ops.split(tensors, tensors.shape[0]))
    new_rates, excess, still = rates.follow(old_rates, all_tensors.log_step, lr)

    def own(x):
        return None if x is None else ops.take(x, numbers, axis=-1)

    excess, tensors = own(excess), TensorState(*map(own, all_tensors))
    tensors = _raised(tensors, own(new_rates.debt))
    largest = None
    if magnitudes is not None:
        magnitudes = ops.expand_dims(magnitudes, 0)
        largest = features.largest_magnitude(magnitudes, tensors.largest)
        tensors = tensors._replace(largest=largest)
    shared = _started(
        config,
        meta,
        SharedState(own(h_tensor), h_global),
        tensors.steps,
        old_rates.reference,
    )
    excess, mean = levels.lowered(config, tensors, excess)
    bias = hierarchy.param_bias(meta, shared)
    if bias is None:
        bias = ops.zeros_like(excess)
    return Begun(
        shared,
        tensors,
        new_rates,
        mean,
        largest,
        bias,
        excess,
        levels.rarity(config, tensors, sizes),
        still,
    )


def _raised(tensors: TensorState, debt) -> TensorState:
    """`tensors` with an average of log lengths; models keep it less the debt.

    Their lengths are multiples of exp(-debt) times the rate, see `rates`.
    """
    return tensors._replace(average=tensors.average + debt)


def _started(config, meta, shared, steps, reference):
    """`kernels.started` for the upper levels."""
    if not config.lazy or shared.h_tensor is None:
        return shared
    start = initial_shared_state(meta, (), 1)
    h_tensor = ops.where(steps > 0, shared.h_tensor, start.h_tensor)
    if shared.h_global is None:
        return SharedState(h_tensor, None)
    h_global = ops.where(reference > 0, shared.h_global, start.h_global)
    return SharedState(h_tensor, h_global)


def finish(
    config: RuleConfig,
    meta_vector,
    numbers,
    state,
    begun: Begun,
    sums,
    sizes,
    decay,
    shares,
    lr,
):
    """Eqs. 11-12, and the factors that steps are multiplied by.

    Args:
        config: the features in use.
        meta_vector: flat meta-parameters.
        numbers: numbers of the tensors that take part [T].
        state: the state, as for `begin`.
        begun: what `begin` returned.
        sums: `levels.totals` of the targets [F, T].
        sizes: number of parameters of each target [T].
        decay: 1 - weight decay * lr of each target [T].
        shares: `step_length.wide_share` of each target [T].
        lr: learning rate, a scalar.

    Returns:
        The new state, and rows [directions + 1, T]: scale of each direction,
        weight decay.
    """
    sums = levels.split_totals(config, sums)
    shared, tensors = levels.step_upper_levels(
        config,
        from_vector(config, meta_vector),
        begun.shared,
        begun.tensors,
        sums,
        sizes,
    )
    debt = ops.take(begun.rates.debt, numbers, axis=-1)
    lr = shares * rates.lent(lr, debt)
    scale = levels.step_scales(config, sums, lr)
    h_tensor, h_global, old_tensors = state
    if h_tensor is not None:
        h_tensor = _put(h_tensor, numbers, shared.h_tensor)
    if h_global is not None:
        h_global = shared.h_global
    tensors = ops.concatenate(_raised(tensors, -debt), axis=0)
    new = h_tensor, h_global, _put(old_tensors, numbers, tensors)
    new = select(begun.still, state, new)
    return new, ops.concatenate([scale, ops.expand_dims(decay, 0)], axis=0)


def _put(old, numbers, columns):
    """`old` [F, all] with some columns [F, T] replaced."""
    new = ops.scatter_update(
        ops.transpose(old), ops.expand_dims(numbers, -1), ops.transpose(columns)
    )
    return ops.transpose(new)
