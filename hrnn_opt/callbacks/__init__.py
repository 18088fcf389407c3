"""Callbacks for `fit`."""

from hrnn_opt.callbacks.attention_swap import AttentionSwap
from hrnn_opt.callbacks.guard import Guard
from hrnn_opt.callbacks.telemetry import Telemetry

__all__ = ["AttentionSwap", "Guard", "Telemetry"]
