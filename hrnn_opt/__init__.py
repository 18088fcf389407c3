"""A learned optimizer for Keras 3: a hierarchical RNN that replaces Adam.

Letters used in the maths, as in the paper:

| letter | meaning |
| --- | --- |
| theta, phi | parameters; attended parameters, where gradients are taken |
| g, g_bar | gradient; its moving averages (Eq. 1) |
| lam, r | moving average of g_bar^2 (Eq. 2); its square root |
| m | rescaled average gradient (Eq. 3) |
| beta | momentum logits of the shortest timescale |
| eta, eta_bar | log step length, in `length_unit` times lr; its average |
| gamma | momentum of eta_bar (Eq. 8) |
| d, u | direction; exp(eta) d |
| c | eta_phi - eta_theta (Eq. 9) |
| h, h_tensor, h_global | states of the Parameter, Tensor and Global RNN |
| x | inputs of the Parameter RNN (section 3.3) |
| P, Q, G; S | hidden sizes; number of timescales |
| N, T, B | parameters; tensors; problem instances side by side |
"""

from hrnn_opt import callbacks
from hrnn_opt.cost.forecast import Estimate, estimate
from hrnn_opt.keras_optimizer import HierarchicalRNN
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.version import __version__

__all__ = [
    "Estimate",
    "HierarchicalRNN",
    "RuleConfig",
    "__version__",
    "callbacks",
    "estimate",
]
