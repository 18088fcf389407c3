"""The learned optimizers of a model, which others may wrap."""

from hrnn_opt.keras_optimizer import HierarchicalRNN


def learned_optimizers(model) -> list[HierarchicalRNN]:
    """The learned optimizers of a model, also those inside other optimizers."""
    found, open_ = [], [getattr(model, "optimizer", None)]
    while open_:
        optimizer = open_.pop()
        if isinstance(optimizer, HierarchicalRNN):
            found.append(optimizer)
        # LossScaleOptimizer has one, MultiOptimizer several.
        open_ += getattr(optimizer, "optimizers", [])
        open_ += [getattr(optimizer, "inner_optimizer", None)]
        open_ = [o for o in open_ if o is not None]
    return found
