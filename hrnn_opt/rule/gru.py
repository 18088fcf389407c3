"""The gated recurrent unit of all three levels (Cho et al., 2014)."""

from typing import Any, NamedTuple

from keras import ops

from hrnn_opt import backend
from hrnn_opt.rule.numerics import column, linear


class GRUParameters(NamedTuple):
    """Weights of a cell with U units and I inputs."""

    input_kernel: Any  # [3U, I]  rows: update z, reset k, candidate c
    gate_kernel: Any  # [2U, U], or None: the input kernel [3U, I + U] has it
    candidate_kernel: Any  # [U, U]
    bias: Any  # [3U]


def gru(p: GRUParameters, x, h, bias=None):
    """One step: z, k = sigmoid(.); c = tanh(.); h <- z h + (1 - z) c.

    Args:
        p: the weights.
        x: input [I, ...].
        h: state [U, ...].
        bias: what the levels above add to both gates and the candidate
            (Eqs. 10-11), broadcastable to [3U, ...]; None adds nothing.

    Returns:
        The new state [U, ...].
    """
    units = h.shape[0]
    offset = column(p.bias, h)
    if bias is not None:
        offset = offset + bias
    if p.gate_kernel is None:
        x = ops.concatenate([x, h], axis=0)
    # Slices would do, but their derivatives are sums of padded arrays.
    gates, c = ops.split(
        linear(p.input_kernel, x) + offset, [2 * units], axis=0
    )
    if p.gate_kernel is not None:
        gates = gates + linear(p.gate_kernel, h)
    z, k = ops.split(ops.sigmoid(gates), 2, axis=0)
    c = backend.tanh(c + linear(p.candidate_kernel, k * h))
    return z * h + (1 - z) * c
