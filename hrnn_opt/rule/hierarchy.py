"""Communication between the levels: the biases of Eq. 10, Eqs. 11 and 12.

Tensor states are [Q, T, ...], the global state is [G, 1, ...].
"""

from typing import Any, NamedTuple

from keras import ops

from hrnn_opt.rule.gru import gru
from hrnn_opt.rule.numerics import linear, mean


class SharedState(NamedTuple):
    """The two upper levels."""

    h_tensor: Any  # [Q, T, ...], None without Tensor RNN
    h_global: Any  # [G, 1, ...], None without Global RNN


def param_bias(meta, shared: SharedState):
    """A_t h_tensor + A_g h_global of Eq. 10: [3P, T, ...], or None.

    With `tensor_step` there is one more row, w_T h_tensor, which the Tensor RNN
    adds to the change of the log step length of all its parameters.
    """
    if shared.h_tensor is None:
        return None
    levels = [shared.h_tensor, *_spread_global(shared)]
    return linear(meta.to_param, ops.concatenate(levels, axis=0))


def _spread_global(shared: SharedState) -> list:
    """h_global for each tensor, [G, T, ...], if there is one."""
    if shared.h_global is None:
        return []
    shape = (shared.h_global.shape[0], *shared.h_tensor.shape[1:])
    return [ops.broadcast_to(shared.h_global, shape)]


def step_shared(
    meta, shared: SharedState, mean_h_x, signals=None, moved=None
) -> SharedState:
    """Eqs. 11-12.

    h_tensor <- GRU_Q(mean over its parameters of [new h_param, x], h_tensor;
    bias B_g h_global, which is one more input), then h_global <- GRU_G(mean
    over *all* tensors of the new h_tensor, h_global).

    Args:
        meta: the meta-parameters, see `products`.
        shared: the old states.
        mean_h_x: [P + inputs, T, ...].
        signals: more inputs of the Tensor RNN (`alignment`), [signals, T, ...],
            or None.
        moved: tensors that made a step, [1, T, ...] of booleans: the others
            keep their state. None stands for all.
    """
    if shared.h_tensor is None:
        return shared
    x = [mean_h_x] if signals is None else [mean_h_x, signals]
    x = ops.concatenate([*x, *_spread_global(shared)], axis=0)
    h_tensor = gru(meta.tensor_gru, x, shared.h_tensor)
    if moved is not None:
        h_tensor = ops.where(moved, h_tensor, shared.h_tensor)
    if shared.h_global is None:
        return SharedState(h_tensor, None)
    over_tensors = mean(h_tensor, axis=1)
    return SharedState(
        h_tensor, gru(meta.global_gru, over_tensors, shared.h_global)
    )
