"""Finds the learned optimizers of a model, which others may wrap."""

import keras

from hrnn_opt.keras_optimizer import HierarchicalRNN


def learned_optimizers(model) -> list[HierarchicalRNN]:
    """The learned optimizers of a model, including those inside others.

    A model with a `train_step` of its own may have several, as attributes or in
    lists or dicts that are attributes.
    """
    found, open_ = [], [getattr(model, "optimizer", None)]
    for value in vars(model).values() if model is not None else ():
        if isinstance(value, dict):
            value = list(value.values())
        open_ += value if isinstance(value, (list, tuple)) else [value]
    open_ = [o for o in open_ if isinstance(o, keras.optimizers.Optimizer)]
    while open_:
        optimizer = open_.pop()
        if isinstance(optimizer, HierarchicalRNN) and not any(
            optimizer is other for other in found
        ):
            found.append(optimizer)
        # LossScaleOptimizer has one, MultiOptimizer several.
        open_ += getattr(optimizer, "optimizers", [])
        open_ += [getattr(optimizer, "inner_optimizer", None)]
        open_ = [o for o in open_ if o is not None]
    return found
