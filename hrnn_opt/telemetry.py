"""What the optimizer's state tells about a model while it trains.

Read from the slots alone: no gradient is taken, and nothing changes.
"""

from typing import NamedTuple

import numpy as np
from keras import ops

from hrnn_opt import backend
from hrnn_opt.model import chunks, kernels
from hrnn_opt.rule import features, readout
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.products import from_vector


class Statistics(NamedTuple):
    """Statistics of a model's T tensors: arrays [T]; NaN for an empty one."""

    step_length: np.ndarray | None  # mean of log10(unit lr exp(eta_bar))
    step_length_spread: np.ndarray | None  # its standard deviation
    momentum_steps: np.ndarray  # timescale 0 of Eq. 1, geometric mean
    magnitude_steps: np.ndarray  # timescale 0 of Eq. 2, geometric mean
    gradient: np.ndarray  # RMS of g_bar at timescale 0
    slow_gradient: np.ndarray  # RMS of g_bar at timescale S-1
    magnitude: np.ndarray  # RMS of r at timescale S-1
    rescaled_gradient: np.ndarray  # RMS of m over all timescales


def statistics(optimizer) -> Statistics:
    """Step lengths, timescales and gradients of each tensor.

    The step length is that of Eqs. 5-8, from the learning rate and eta_bar (so
    None without relative learning rate). A timescale is the number of steps in
    which an average forgets all but 1/e of what it holds; timescale s is 2^s
    times timescale 0, which is given.

    Args:
        optimizer: a `HierarchicalRNN`.

    Raises:
        ValueError: the optimizer is not built: it has no state yet.
    """
    if not optimizer.built:
        raise ValueError(
            "Argument `optimizer` must be built: it has no state before its "
            f"first step. Received: {optimizer.name!r}, not built"
        )
    config, slots = optimizer.config, optimizer._slots
    meta_vector = backend.read(slots.meta_vector)
    # Chunks of one shape if they are many: each shape is compiled.
    plan = chunks.plan(tuple(slots.sizes), one_program=True)
    observe = kernels.compiled(observe_chunk, config)
    sums = 0
    for chunk in plan.chunks:
        packed = chunks.join(
            chunk,
            [slots.piece(piece) for piece in chunk.pieces],
        )
        by_row = ops.convert_to_numpy(
            observe(meta_vector, packed, chunk.owner, chunk.filled)
        )
        # Sums of each tensor, row by row; np.add.at would take as long as the
        # rest.
        sums = sums + np.stack(
            [np.bincount(chunk.owner, row, len(slots.sizes)) for row in by_row]
        )
    lr = float(ops.convert_to_numpy(optimizer.learning_rate))
    debt = ops.convert_to_numpy(slots.rates.debt)[0]
    lr = lr * slots.shares * np.exp(-debt.astype("float64"))
    return _summed(config, sums, np.asarray(slots.sizes), lr)


def observe_chunk(config: RuleConfig, meta_vector, packed, owner, filled):
    """Sums over rows, [9, R] in float64: squares neither cancel nor overflow.

    Args:
        config: the features in use.
        meta_vector: flat meta-parameters.
        packed: state [F, n].
        owner: numbers of the rows' tensors [R]; only the shape counts.
        filled: parameters in each row that are not padding [R], or None.
    """
    rows, n = owner.shape[0], packed.shape[1]
    width = n // rows
    meta = from_vector(config, meta_vector)
    packed = ops.reshape(ops.cast(packed, meta_vector.dtype), (-1, rows, width))
    state = kernels.unpack(config, packed)
    logits = readout.momentum_logits(meta, state.h)
    limit = features.LOGIT_RANGE
    # sigmoid(beta) = exp(-1 / steps).
    log_steps = -ops.log(ops.softplus(ops.clip(-logits, -limit, limit)))
    m = features.rescale(state.g_bar, state.r)
    eta_bar = ops.zeros_like(log_steps[:1])
    if config.relative_learning_rate:
        eta_bar = state.eta_bar

    def double(x):
        return ops.cast(x, "float64")

    values = ops.concatenate(
        [
            double(eta_bar),
            double(eta_bar) ** 2,
            double(log_steps),
            double(state.g_bar[:1]) ** 2,
            double(state.g_bar[-1:]) ** 2,
            double(state.r[-1:]) ** 2,
            ops.mean(double(m) ** 2, axis=0, keepdims=True),
        ],
        axis=0,
    )
    if filled is not None:
        column = ops.arange(width, dtype="int32")
        inside = column < ops.expand_dims(filled, -1)
        values = ops.where(inside, values, ops.zeros_like(values))
    return ops.sum(values, axis=-1)


def _summed(config, sums, sizes, lr) -> Statistics:
    with np.errstate(invalid="ignore", divide="ignore"):
        eta, eta_squared, momentum, magnitude, *squares = sums / sizes
        length = spread = None
        if config.relative_learning_rate:
            length = np.log10(config.length_unit * lr) + eta / np.log(10)
            spread = np.sqrt(np.maximum(eta_squared - eta**2, 0)) / np.log(10)
        return Statistics(
            length,
            spread,
            np.exp(momentum),
            np.exp(magnitude),
            *np.sqrt(squares),
        )
