"""Callbacks for `fit`."""

from hrnn_opt.callbacks.attention_swap import AttentionSwap

__all__ = ["AttentionSwap"]
