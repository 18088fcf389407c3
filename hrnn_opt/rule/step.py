"""One step of the learned optimizer, composed from the equations' modules.

Pure functions of tensors, in the order of a step: `sense` (element-wise, what
every parameter does), `totals` (sums over tensors), `hierarchy.step_shared`
(the two upper levels), `step_scales` and `advance` (the move). The Keras
optimizer calls them on pieces of a model, one after the other; `step` composes
them in one go, for B problem instances at once, and can be differentiated
twice.

Shapes: a parameter array is [F, R, width, ...] (see `segments`): features
lead, B instances come last, where their values broadcast and sum fastest (1.8
times as fast as with instances before the parameters, at 20 parameters and 32
instances). One problem has no axis of instances.
"""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from hrnn_opt.rule import (
    alignment,
    features,
    hierarchy,
    readout,
    step_length,
)
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.gru import gru
from hrnn_opt.rule.hierarchy import SharedState
from hrnn_opt.rule.numerics import safe_divide, select
from hrnn_opt.rule.products import Products
from hrnn_opt.rule.segments import Segments
from hrnn_opt.rule.state import ParamState, RuleState, TensorState


class Sensed(NamedTuple):
    """What `sense` passes on."""

    x: Any  # [inputs, ...]      of the Parameter RNN
    d: Any  # [directions, ...]  0 where there is no gradient
    u: Any  # [directions, ...]  exp(eta) d, longer for rare elements
    own: Any  # [1, ...]  exp(eta) d of theta, or None without `step_spread`
    moving: Any  # [1, ...]      1 where there is a gradient
    products: Any  # [1 + 2 S, ...] of `alignment`, or None


def sense(
    config: RuleConfig,
    meta: Products,
    state: ParamState,
    g,
    bias=None,
    mean_eta_bar=0.0,
    excess=None,
    rarity=None,
    present=None,
) -> tuple[ParamState, Sensed]:
    """Eqs. 1-4, 10, 13, 7-9: everything that is element-wise.

    Differs from the paper: an element whose gradient is exactly zero does not
    move in this step and keeps its step length. It gets no feedback on either
    (in a dead unit, for an input that is always zero, in a row of an embedding
    that is not in the minibatch), so that any motion of its own would go on
    forever. With `lazy` it keeps its averages and its hidden state, too.

    Args:
        config: the features in use.
        meta: the meta-parameters.
        state: the parameters' memory.
        g: finite gradients at phi, [1, R, width, ...].
        bias: bias of the upper levels, `hierarchy.param_bias` for every row,
            [3P or 3P + 1, R, 1, ...], or None.
        mean_eta_bar: `mean_log_step` of the problem.
        excess: amount to subtract from eta_bar of the elements that take part
            in this step, [1, R, 1, ...], or None.
        rarity: `rarity` of every row's tensor, [2, R, 1, ...]; only with
            `catch_up`.
        present: whether an element has a gradient, be it negligible, of the
            shape of g; only with `catch_up`.

    Returns:
        The new state, and what the other functions need.
    """
    old = state
    if excess is not None and config.relative_learning_rate:
        state = state._replace(eta_bar=state.eta_bar - excess)
    tensor_step = None
    if config.tensor_step:
        bias, tensor_step = ops.split(bias, [bias.shape[0] - 1], axis=0)
    logits = readout.momentum_logits(meta, state.h)
    decay_g = features.decays(logits[:1], config.timescales)
    decay_lam = features.decays(logits[1:], config.timescales)
    first = features.first_gradient(g, state.r)
    g_bar = features.gradient_average(g, state.g_bar, decay_g, first)
    r = features.root_mean_square(g, g_bar, state.r, decay_lam, first)
    m = features.rescale(g_bar, r) if config.dynamic_input_scaling else g_bar
    x = [m]
    if config.relative_log_magnitudes:
        x.append(features.relative_log_magnitude(r))
    if config.relative_learning_rate:
        x.append(features.relative_log_step(state.eta_bar, mean_eta_bar))
    x = ops.concatenate(x, axis=0)
    h = gru(meta.param_gru, x, state.h, bias)
    moving = ops.logical_and(features.seen(r), ops.not_equal(g, 0))
    d, eta = readout.outputs(meta, h, m)
    if tensor_step is not None:
        eta = eta + tensor_step
    d = ops.where(moving, d, ops.zeros_like(d))
    u, eta_bar = d, None
    if config.direction_length:
        if config.relative_learning_rate:
            eta = ops.where(moving, eta, ops.zeros_like(eta))
            gamma = ops.sigmoid(meta.step_momentum[0])
            eta, eta_bar = step_length.update_log_step(
                state.eta_bar, mean_eta_bar, eta, gamma
            )
        if config.attention:
            c = meta.attention_offset[0]
            eta_phi = step_length.attended_log_step(eta, c)
            eta = ops.concatenate([eta, eta_phi], axis=0)
        u = step_length.unscaled_step(d, eta)
    own = u[:1] if config.step_spread else None
    own_steps = None
    if config.catch_up:
        own_steps = state.own_steps + ops.cast(present, d.dtype)
        u = step_length.catch_up(
            u, rarity[:1], own_steps, rarity[1:], config.catch_up
        )
    new = ParamState(h, g_bar, r, own_steps, eta_bar)
    if config.lazy:
        new = select(moving, new, old)._replace(own_steps=own_steps)
    products = None
    if config.alignment:
        products = alignment.products(g, state.g_bar, r, moving)
    return new, Sensed(x, d, u, own, ops.cast(moving, d.dtype), products)


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


def advance(config: RuleConfig, theta, u, scale, decay=1.0):
    """The new theta and phi from `u` and `scale` (Eqs. 5-6, section 3.2.1)."""
    steps = scale * u
    delta_phi = steps[1:] if config.attention else None
    return step_length.move(theta, steps[:1], delta_phi, decay)


def step(
    config: RuleConfig,
    meta: Products,
    segments: Segments,
    state: RuleState,
    theta,
    phi,
    g,
    lr,
):
    """One step on one problem, or on B problems side by side.

    If an instance has a NaN or infinite gradient anywhere, it stays as it was,
    and the step is counted in its `RuleState.skipped`.

    Args:
        config: the features in use.
        meta: the meta-parameters.
        segments: where the problem's tensors lie.
        state: memory, from `initial_state` or an earlier step.
        theta: parameters, [N, ...], tensors one after another.
        phi: attended parameters, [N, ...].
        g: gradient at phi, [N, ...].
        lr: learning rate, a scalar or [...]; to begin with, steps are that
            long (shorter in tensors with more than `RuleConfig.wide_inputs`
            inputs).

    Returns:
        The new theta, phi and state.
    """
    g = segments.to_rows(g)
    finite = ops.all(ops.isfinite(g), axis=(0, 1, 2))
    g = ops.where(finite, g, ops.zeros_like(g))
    tensors = state.tensors
    present = ops.not_equal(g, 0)
    if config.negligible:
        mean = segments.divide_by_sizes(segments.total(ops.abs(g)))
        largest = features.largest_magnitude(mean, tensors.largest)
        g = features.without_negligible(
            g, segments.spread(largest), config.negligible
        )
        tensors = tensors._replace(largest=largest)

    bias = hierarchy.param_bias(meta, state.shared)
    excess, mean_eta_bar = lowered(config, tensors)
    sizes = segments.column_of_sizes(g)
    rare = rarity(config, tensors, sizes)
    param, sensed = sense(
        config,
        meta,
        state.param,
        g,
        None if bias is None else segments.spread(bias),
        mean_eta_bar,
        None if excess is None else segments.spread(excess),
        None if rare is None else segments.spread(rare),
        present,
    )
    sums = split_totals(config, totals(config, param, sensed, segments.total))
    shared, tensors = step_upper_levels(
        config, meta, state.shared, tensors, sums, sizes
    )
    lr = ops.cast(lr, g.dtype) * segments.column_of_shares(
        g, config.wide_inputs
    )
    scale = step_scales(config, sums, lr)
    moved = advance(
        config, segments.to_rows(theta), sensed.u, segments.spread(scale)
    )
    new = tuple(segments.from_rows(x) for x in moved)

    theta, phi = select(finite, new, (theta, phi))
    kept = RuleState(
        select(finite, param, state.param),
        select(finite, shared, state.shared),
        select(finite, tensors, state.tensors),
        state.skipped + ops.cast(ops.logical_not(finite), "int32"),
    )
    return theta, phi, kept
