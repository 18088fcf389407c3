"""Outputs of the Parameter RNN: Eq. 13 and the shortcut of A.1."""

from keras import ops

from hrnn_opt.rule.numerics import column, linear


def momentum_logits(meta, h):
    """beta_g, beta_lambda = W_b h + b_b (Eq. 13): [2, ..., n].

    Read from the state *before* the update, so that they need no slot.
    """
    return linear(meta.logit_kernel, h) + column(meta.logit_bias, h)


def outputs(meta, h, m):
    """Directions and the change of the log step length (Eq. 13, A.1).

    d_theta (and d_phi with attention) = W_d h + U_d m, without bias as section
    3.3 says; delta_eta = w_e h + b_e. `h` is the *new* state. One product gives
    both: on its own, w_e h is a product with a vector, which is slow in XLA.

    Returns:
        d, [1 or 2, ..., n]; delta_eta, [1, ..., n], or None without step
        lengths.
    """
    d, delta_eta = linear(meta.readout_kernel, h), None
    if meta.step_bias is not None:
        d, delta_eta = ops.split(d, [d.shape[0] - 1], axis=0)
        delta_eta = delta_eta + column(meta.step_bias, h)
    if meta.shortcut_kernel is not None:
        d = d + linear(meta.shortcut_kernel, m)
    return d, delta_eta
