"""What every parameter does in a step: Eqs. 1-4, 10, 13, 7-9, element-wise."""

from typing import Any, NamedTuple

from keras import ops

from hrnn_opt.rule import alignment, features, readout, step_length
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.gru import gru
from hrnn_opt.rule.numerics import select
from hrnn_opt.rule.products import Products
from hrnn_opt.rule.state import ParamState


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
        rarity: `levels.rarity` of every row's tensor, [2, R, 1, ...]; only with
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
