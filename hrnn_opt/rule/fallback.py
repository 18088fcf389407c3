"""RMSProp-like steps for use after the learned rule failed (see `guard`).

They use only the slots g_bar and r, and no learned numbers.
"""

import math

from keras import ops

from hrnn_opt.rule import features, step_length
from hrnn_opt.rule.config import RuleConfig

LOGITS = (2.2, 3.2)
"""beta_g and beta_lambda of a fresh optimizer, for all parameters: at timescale
0, decays of 0.9 and 0.96."""


def sense(config: RuleConfig, state, g):
    """Eqs. 1-2 with constant decays, and the direction of RMSProp.

    d = - g_bar[0] / r[S-1]: the shortest average of the gradient over the
    longest of its magnitude; 0 where no gradient was seen yet.

    Args:
        config: the features in use.
        state: `state.ParamState`; h and eta_bar stay as they are.
        g: finite gradients, [1, ...].

    Returns:
        The new state, d [1, ...], and 1 where a gradient was seen [1, ...].
    """
    decay_g, decay_lam = (
        features.decays(ops.full_like(g, logit), config.timescales)
        for logit in LOGITS
    )
    first = features.first_gradient(g, state.r)
    g_bar = features.gradient_average(g, state.g_bar, decay_g, first)
    r = features.root_mean_square(g, g_bar, state.r, decay_lam, first)
    seen = features.seen(r)
    d = -features.rescale(g_bar[:1], r[-1:])
    d = ops.where(seen, d, ops.zeros_like(d))
    return state._replace(g_bar=g_bar, r=r), d, ops.cast(seen, d.dtype)


def step_scale(d_squared, count, unit, log_length):
    """unit exp(log_length) / rms(d): steps as long as the learned ones were.

    As Eq. 5, with one length for the whole tensor: the step of a tensor has a
    root mean square of unit exp(log_length).

    Args:
        d_squared: sums of d^2, [1, T].
        count: number of parameters that have seen a gradient, [1, T].
        unit: learning rate times the config's `length_unit` and
            `step_length.wide_share`, [T].
        log_length: log step length of each tensor [T], relative to the unit, as
            eta_bar is.
    """
    return step_length.step_scale(d_squared, count, unit * ops.exp(log_length))


SHORTER = math.log(0.1)
"""Added to the log lengths each time that these steps fail, too."""
