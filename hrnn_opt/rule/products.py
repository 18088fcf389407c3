"""The meta-parameters joined into few matrices, as a step uses them.

The cost of a small product in XLA is its call, not its arithmetic: where a step
adds up several products of one level (Eqs. 10-13), it takes one product of
joined matrices and joined vectors instead. The numbers are the same; the flat
vector, the files and the paper's names are those of `meta_parameters`.
"""

from typing import Any, NamedTuple

from keras import ops

from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.gru import GRUParameters
from hrnn_opt.rule.meta_parameters import MetaParameters, unflatten


class Products(NamedTuple):
    """What the rule reads; None where a feature is off."""

    param_gru: GRUParameters  # Eq. 10; see `with_one_product`
    tensor_gru: GRUParameters | None  # Eq. 11: [x, signals, h_global, h]
    global_gru: GRUParameters | None  # Eq. 12, joined: of [x, h]
    to_param: Any  # [A_t, A_g], and [w_T, 0] below, [3P + 1, Q + G], Eq. 10
    logit_kernel: Any  # W_b [2, P]
    logit_bias: Any  # b_b [2]
    readout_kernel: Any  # W_d, and w_e below it, [directions + 1, P]
    shortcut_kernel: Any  # U_d [directions, S]
    step_bias: Any  # b_e [1]
    step_momentum: Any  # logit of gamma, Eq. 8 [1]
    attention_offset: Any  # c, Eq. 9 [1]
    h_param: Any  # initial states [P], [Q], [G]
    h_tensor: Any
    h_global: Any


def from_vector(config: RuleConfig, vector) -> Products:
    """The record, from the flat vector of meta-parameters."""
    return products(unflatten(config, vector))


def products(meta: MetaParameters) -> Products:
    """The same numbers, joined."""
    same = {k: v for k, v in meta._asdict().items() if k in Products._fields}
    joined = {
        "tensor_gru": _joined(
            meta.tensor_gru, meta.signal_kernel, meta.global_to_tensor
        ),
        "global_gru": _joined(meta.global_gru),
        "to_param": _to_param(meta),
        "readout_kernel": _beside(
            meta.direction_kernel, meta.step_kernel, axis=0
        ),
    }
    return Products(**same | joined)


def with_one_product(meta: Products) -> Products:
    """The same with a Parameter RNN that takes [x, h] in one product.

    An update of a Keras model takes 0.96 of the time with it; in meta-training
    the derivatives of the copy of x and h cost more than the product saves.
    """
    return meta._replace(param_gru=_joined(meta.param_gru))


def _beside(*kernels, axis: int = 1):
    """The kernels that are not None, side by side; None if all are."""
    kernels = [kernel for kernel in kernels if kernel is not None]
    return ops.concatenate(kernels, axis=axis) if kernels else None


def _to_param(meta: MetaParameters):
    """The kernel of what the levels above add in every parameter."""
    to_param = _beside(meta.tensor_to_param, meta.global_to_param)
    row = meta.tensor_step_kernel
    if row is None:
        return to_param
    missing = to_param.shape[1] - row.shape[1]
    row = ops.pad(row, ((0, 0), (0, missing)))
    return ops.concatenate([to_param, row], axis=0)


def _joined(p: GRUParameters | None, *more) -> GRUParameters | None:
    """A cell whose `input_kernel` takes [x, what `more` takes, h].

    To join x and h copies them, which costs nothing in the upper levels, whose
    states are small; for the Parameter RNN see `with_one_product`.
    """
    if p is None:
        return None
    units = p.candidate_kernel.shape[0]
    # The candidate takes h after its gate, in a product of its own.
    nothing = ops.zeros((units, units), p.gate_kernel.dtype)
    gate = _beside(p.gate_kernel, nothing, axis=0)
    return p._replace(
        input_kernel=_beside(p.input_kernel, *more, gate), gate_kernel=None
    )
