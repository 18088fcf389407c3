"""What is read out of the Parameter RNN: Eq. 13 and the shortcut of A.1."""

from hrnn_opt.numerics import column, linear


def momentum_logits(meta, h):
    """beta_g, beta_lambda = W_b h + b_b (Eq. 13): [2, ..., n].

    Read from the state *before* the update, so that they need no slot.
    """
    return linear(meta.logit_kernel, h) + column(meta.logit_bias, h)


def directions(meta, h, m):
    """d_theta (and d_phi with attention) = W_d h + U_d m (Eq. 13, A.1).

    Without bias, as section 3.3 says. `h` is the *new* state.

    Returns:
        [1 or 2, ..., n].
    """
    d = linear(meta.direction_kernel, h)
    if meta.shortcut_kernel is not None:
        d = d + linear(meta.shortcut_kernel, m)
    return d


def log_step_change(meta, h):
    """delta_eta = w_e h + b_e (Eq. 13), from the *new* state: [1, ..., n]."""
    return linear(meta.step_kernel, h) + column(meta.step_bias, h)
