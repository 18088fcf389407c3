"""What is done for tensors as wholes: bounds, sums, upper levels, scales."""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from hrnn_opt.rule import alignment, hierarchy, step_length
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.elements import Sensed
from hrnn_opt.rule.hierarchy import SharedState
from hrnn_opt.rule.numerics import safe_divide, select
from hrnn_opt.rule.products import Products
from hrnn_opt.rule.state import ParamState, TensorState


def rarity(config: RuleConfig, tensors: TensorState, sizes):
    """What `step_length.catch_up` has to know of tensors before a step.

    Args:
        config: the features in use.
        tensors: the tensors' state.
        sizes: number of parameters of each tensor, to broadcast against
            [1, T, ...].

    Returns:
        The number of this step and `step_length.sparsity`, [2, T, ...]; None
        without `catch_up`.
    """
    if not config.catch_up:
        return None
    weight = step_length.sparsity(tensors.population, sizes)
    return ops.concatenate([tensors.steps + 1, weight], axis=0)


def lowered(config: RuleConfig, tensors: TensorState, excess=None):
    """By how much step lengths are lowered before a step, and what remains.

    First what grew too far in time, then what is too far above other tensors.

    Args:
        config: the features in use.
        tensors: the tensors' state.
        excess: an amount that is known already, [1, T, ...], or None.

    Returns:
        The excess with those of `step_length`, [1, T, ...] or None, and
        `mean_log_step` without it. The state of tensors that will have no
        gradient is not lowered.
    """
    log_step = tensors.log_step
    if excess is not None:
        log_step = log_step - excess
    found = [] if excess is None else [excess]
    if config.tensor_growth:
        found.append(
            step_length.growth_excess(
                log_step,
                tensors.average,
                tensors.steps,
                config.tensor_growth,
                config.tensor_decay,
            )
        )
        log_step = log_step - found[-1]
    mean = mean_log_step(tensors._replace(log_step=log_step))
    if config.tensor_spread:
        found.append(
            step_length.tensor_excess(log_step, mean, config.tensor_spread)
        )
        log_step = log_step - found[-1]
        mean = mean_log_step(tensors._replace(log_step=log_step))
    return sum(found) if found else None, mean


def mean_log_step(tensors: TensorState):
    """Mean of eta_bar that eta_rel is relative to (section 3.2.4): [...].

    It is over the elements of all tensors that took part in their tensor's last
    step: with `lazy` those that had a gradient, else all of them. Differs from
    the paper, which has the mean over all parameters: rows of a large table
    that have had no gradient yet would hold it at 0.
    """
    number = ops.sum(tensors.population, axis=(0, 1))
    total = ops.sum(tensors.log_step * tensors.population, axis=(0, 1))
    return safe_divide(total, number)


def totals(config: RuleConfig, param: ParamState, sensed: Sensed, total):
    """Sums over parameters that the levels above and the steps need.

    Args:
        config: the features in use.
        param: new state.
        sensed: what `sense` returned with it.
        total: function that sums [F, R, width, ...] over each tensor or row.

    Returns:
        The fields of `Totals`, one after another.
    """
    own = [param.h, sensed.x]
    if config.relative_learning_rate:
        own.append(param.eta_bar)
    if config.lazy:
        own = [sensed.moving * value for value in own]
    own += [sensed.d * sensed.d, sensed.moving]
    if config.step_spread:
        own.append(sensed.own * sensed.own)
    if config.alignment:
        own.append(sensed.products)
    return ops.concatenate([total(value) for value in own], axis=0)


class Totals(NamedTuple):
    """Sums over each tensor, with `lazy` over elements that have a gradient."""

    h_x: Any  # [P + inputs, T, ...]  new h, and x
    eta_bar: Any  # [1, T, ...], or [0, T, ...] if there is none
    d_squared: Any  # [directions, T, ...]
    count: Any  # [1, T, ...]  elements that have a gradient
    own_squared: Any  # [1, T, ...], or [0, T, ...] without `step_spread`
    products: Any  # [1 + 2 S, T, ...] of `alignment`, or [0, T, ...]


def split_totals(config: RuleConfig, sums) -> Totals:
    """Splits the result of `totals` into its fields."""
    sizes = (
        config.param_units + config.inputs,
        int(config.relative_learning_rate),
        config.directions,
        1,
        int(config.step_spread > 0),
    )
    ends = np.cumsum(sizes).tolist()
    return Totals(*ops.split(sums, ends, axis=0))


def step_upper_levels(
    config: RuleConfig,
    meta: Products,
    shared: SharedState,
    tensors: TensorState,
    totals: Totals,
    sizes,
) -> tuple[SharedState, TensorState]:
    """Eqs. 11-12, and the state of the tensors.

    With `lazy`, a tensor in which no element has a gradient stays as it was.

    Args:
        config: the features in use.
        meta: the meta-parameters.
        shared: the old states of the two levels.
        tensors: the old state, but with the new `largest`.
        totals: the totals of this step.
        sizes: number of parameters of each tensor, to broadcast against
            [1, T, ...].

    Returns:
        The new states.
    """
    moved = totals.count > 0
    population = totals.count
    if not config.lazy:
        population = ops.ones_like(population) * sizes
    signals = []
    if config.alignment:
        signals.append(alignment.alignment(totals.products, totals.count))
    if config.age:
        signals.append(alignment.age(tensors.steps))
    shared = hierarchy.step_shared(
        meta,
        shared,
        safe_divide(totals.h_x, population),
        ops.concatenate(signals, axis=0) if signals else None,
        moved if config.lazy else None,
    )
    log_step = tensors.log_step
    if config.relative_learning_rate:
        log_step = safe_divide(totals.eta_bar, population)
    steps = tensors.steps + ops.cast(moved, tensors.steps.dtype)
    average = tensors.average
    if config.tensor_growth:
        average = step_length.average_over_log_time(average, log_step, steps)
    new = TensorState(tensors.largest, steps, log_step, population, average)
    if config.lazy:
        new = select(moved, new, tensors._replace(largest=new.largest))
    return shared, new


def step_scales(config: RuleConfig, sums: Totals, lr):
    """The factors that turn `u` into steps (Eqs. 5-6), for each tensor.

    Args:
        config: the features in use.
        sums: the totals of this step.
        lr: learning rate times `step_length.wide_share`, a scalar or to
            broadcast against [1, T, ...]; lengths are multiples of the config's
            `length_unit` times it.
    """
    lr = config.length_unit * lr
    if not config.direction_length:
        return lr * ops.ones_like(sums.d_squared)
    if config.step_spread:
        lr = lr * ops.exp(
            -step_length.step_excess(
                sums.own_squared,
                sums.d_squared[:1],
                sums.count,
                config.step_spread,
            )
        )
    return step_length.step_scale(sums.d_squared, sums.count, lr)
