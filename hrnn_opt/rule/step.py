"""One step of the learned optimizer, composed of the equations' homes.

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

from keras import ops

from hrnn_opt.rule import features, hierarchy, readout, step_length
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.gru import gru
from hrnn_opt.rule.hierarchy import SharedState
from hrnn_opt.rule.numerics import select
from hrnn_opt.rule.products import Products
from hrnn_opt.rule.segments import Segments


class ParamState(NamedTuple):
    """What every parameter remembers."""

    h: Any  # [P, R, width, ...]
    g_bar: Any  # [S, R, width, ...]
    r: Any  # [S, R, width, ...]  sqrt(lambda)
    eta_bar: Any  # [1, R, width, ...], None without relative learning rate


class RuleState(NamedTuple):
    """The whole optimizer's memory of one problem (or of B problems)."""

    param: ParamState
    shared: SharedState
    largest: Any  # [1, T, ...] of `features`, None where nothing is negligible
    skipped: Any  # [...] number of steps skipped for a non-finite gradient


class Sensed(NamedTuple):
    """What `sense` hands on."""

    x: Any  # [inputs, ...]      of the Parameter RNN
    d: Any  # [directions, ...]  0 where there is no gradient
    u: Any  # [directions, ...]  exp(eta) d
    moving: Any  # [1, ...]      1 where there is a gradient


def initial_param_state(config: RuleConfig, meta: Products, shape):
    """State of parameters that have seen nothing: arrays [F, *shape]."""

    def zeros(rows):
        return ops.zeros((rows, *shape), meta.h_param.dtype)

    h = ops.reshape(meta.h_param, (-1,) + (1,) * len(shape))
    return ParamState(
        ops.broadcast_to(h, (config.param_units, *shape)),
        zeros(config.timescales),
        zeros(config.timescales),
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
    largest = None
    if config.negligible:
        largest = ops.zeros((1, tensors, *instances), meta.h_param.dtype)
    return RuleState(
        initial_param_state(config, meta, shape),
        initial_shared_state(meta, instances, tensors),
        largest,
        ops.zeros(instances, "int32"),
    )


def sense(
    config: RuleConfig,
    meta: Products,
    state: ParamState,
    g,
    bias=None,
    mean_eta_bar=0.0,
) -> tuple[ParamState, Sensed]:
    """Eqs. 1-4, 10, 13, 7-9: everything that is element-wise.

    Differs from the paper: an element whose gradient is exactly zero does not
    move in this step and keeps its step length. It learns nothing of either
    (a unit that is dead, an input that is always zero, a row of an embedding
    that is not in the minibatch), so that what it did on its own would go on
    for ever.

    Args:
        config: the features in use.
        meta: the meta-parameters.
        state: the parameters' memory.
        g: finite gradients at phi, [1, R, width, ...].
        bias: of the upper levels, [3P, R, 1, ...], or None.
        mean_eta_bar: mean of eta_bar over all parameters of the problem.

    Returns:
        The new state, and what the other functions need.
    """
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
    new = ParamState(h, g_bar, r, eta_bar)
    return new, Sensed(x, d, u, ops.cast(moving, d.dtype))


def totals(param: ParamState, sensed: Sensed, total):
    """Sums over parameters that the levels above and the steps need.

    Args:
        param: new state.
        sensed: returned with it.
        total: sums [F, R, width, ...] over each tensor or row.

    Returns:
        One after another: new h and x, d^2, number of parameters that
        have a gradient. `split_totals` tells them apart.
    """
    sums = (param.h, sensed.x, sensed.d * sensed.d, sensed.moving)
    return ops.concatenate([total(value) for value in sums], axis=0)


def split_totals(config: RuleConfig, sums):
    """The sums of [h, x], of d^2 and of moving, from `totals`."""
    h_x = config.param_units + config.inputs
    return sums[:h_x], sums[h_x:-1], sums[-1:]


def step_scales(config: RuleConfig, d_squared, count, lr):
    """What `u` is multiplied by to be a step (Eqs. 5-6), for each tensor.

    Args:
        config: the features in use.
        d_squared: sums of d^2, [directions, T, ...].
        count: number of parameters that have a gradient, [1, T, ...].
        lr: learning rate, a scalar or [...]; lengths are multiples of the
            config's `length_unit` times it.
    """
    lr = config.length_unit * lr
    if not config.direction_length:
        return lr * ops.ones_like(d_squared)
    return step_length.step_scale(d_squared, count, lr)


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

    A step with a NaN or infinite gradient anywhere in an instance leaves that
    instance as it was, and is counted in its `state.skipped`.

    Args:
        config: the features in use.
        meta: the meta-parameters.
        segments: where the problem's tensors lie.
        state: memory, from `initial_state` or an earlier step.
        theta: parameters, [N, ...], tensors one after another.
        phi: attended parameters, [N, ...].
        g: gradient at phi, [N, ...].
        lr: learning rate, a scalar or [...].

    Returns:
        The new theta, phi and state.
    """
    g = segments.to_rows(g)
    finite = ops.all(ops.isfinite(g), axis=(0, 1, 2))
    g = ops.where(finite, g, ops.zeros_like(g))
    largest = state.largest
    if config.negligible:
        mean = segments.divide_by_sizes(segments.total(ops.abs(g)))
        largest = features.largest_magnitude(mean, largest)
        g = features.without_negligible(
            g, segments.spread(largest), config.negligible
        )

    bias = hierarchy.param_bias(meta, state.shared)
    mean_eta_bar = 0.0
    if config.relative_learning_rate:
        total = ops.sum(state.param.eta_bar, axis=(1, 2), keepdims=True)
        mean_eta_bar = total / segments.total_size
    param, sensed = sense(
        config,
        meta,
        state.param,
        g,
        None if bias is None else segments.spread(bias),
        mean_eta_bar,
    )
    h_x, d_squared, count = split_totals(
        config, totals(param, sensed, segments.total)
    )
    shared = hierarchy.step_shared(
        meta, state.shared, segments.divide_by_sizes(h_x)
    )
    lr = ops.cast(lr, g.dtype)
    scale = step_scales(config, d_squared, count, lr)
    moved = advance(
        config, segments.to_rows(theta), sensed.u, segments.spread(scale)
    )
    new = tuple(segments.from_rows(x) for x in moved)

    theta, phi = select(finite, new, (theta, phi))
    kept = RuleState(
        select(finite, param, state.param),
        select(finite, shared, state.shared),
        select(finite, largest, state.largest),
        state.skipped + ops.cast(ops.logical_not(finite), "int32"),
    )
    return theta, phi, kept
