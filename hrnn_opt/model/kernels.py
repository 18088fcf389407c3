"""The compiled rule on one chunk of a model, and on all of its chunks.

A packed slot is [F, n]: the rows of `ParamState`, one after another. These are
the only functions that see the packing.
"""

import functools
from collections.abc import Callable

from keras import ops

from hrnn_opt import backend
from hrnn_opt.model import rounding
from hrnn_opt.model.attended import keep_zeros
from hrnn_opt.rule import elements, fallback, features, levels
from hrnn_opt.rule import step as rule
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.numerics import select
from hrnn_opt.rule.products import from_vector, with_one_product
from hrnn_opt.rule.state import ParamState


def pack(state: ParamState):
    """The record as one array [F, ...]."""
    fields = [field for field in state if field is not None]
    return ops.concatenate(fields, axis=0)


def _repack(state: ParamState, packed, seeds):
    """`pack` in the shape and type of the slot `packed`."""
    whole = pack(state)
    if seeds is not None:
        whole = rounding.to_bfloat16(whole, seeds)
    return ops.reshape(whole, packed.shape)


def unpack(config: RuleConfig, packed) -> ParamState:
    """The inverse of `pack`."""
    p, s = config.param_units, config.timescales
    end = p + 2 * s + bool(config.catch_up)
    return ParamState(
        packed[:p],
        packed[p : p + s],
        packed[p + s : p + 2 * s],
        packed[p + 2 * s : end] if config.catch_up else None,
        packed[end:] if config.relative_learning_rate else None,
    )


def sense_chunk(
    config: RuleConfig,
    meta_vector,
    mean_eta_bar,
    still,
    packed,
    g,
    largest,
    bias,
    excess,
    rarity,
    filled,
    seeds=None,
):
    """`elements.sense` on rows, and the sums that the upper levels need.

    Args:
        config: the features in use.
        meta_vector: flat meta-parameters.
        mean_eta_bar: scalar.
        still: boolean, whether the state must not change.
        packed: state [F, n], of the gradients' type or of bfloat16.
        g: finite gradients [n].
        largest: `features.largest_magnitude` of the rows' tensors [1, R], None
            where nothing is negligible.
        bias: `hierarchy.param_bias` of the rows' tensors, [3P or 3P + 1, R];
            only its shape counts without Tensor RNN.
        excess: excess log step length of the rows' tensors (`rates.follow`),
            [1, R].
        rarity: `levels.rarity` of the rows' tensors, [2, R], or None.
        filled: parameters in each row that are not padding [R], or None if
            there is no padding.
        seeds: seeds for `rounding.to_bfloat16` [words(F), R], None if the state
            is not of bfloat16.

    Returns:
        The new packed state, u [directions, n], and the rows' `levels.totals`
        [..., R].
    """
    rows, n = bias.shape[1], g.shape[0]
    shape = (-1, rows, n // rows)
    state = unpack(config, ops.reshape(ops.cast(packed, g.dtype), shape))
    g = ops.reshape(g, shape)
    present = ops.not_equal(g, 0)
    if largest is not None:
        g = features.without_negligible(
            g, ops.expand_dims(largest, -1), config.negligible
        )
    meta = with_one_product(from_vector(config, meta_vector))
    new, sensed = elements.sense(
        config,
        meta,
        started(config, meta, state),
        g,
        ops.expand_dims(bias, -1),
        mean_eta_bar,
        ops.expand_dims(excess, -1),
        None if rarity is None else ops.expand_dims(rarity, -1),
        present,
    )
    kept = select(still, state, new)
    total = functools.partial(row_sums, filled)
    sums = levels.totals(config, new, sensed, total)
    return (
        _repack(kept, packed, seeds),
        ops.reshape(sensed.u, (-1, n)),
        sums,
    )


def fallback_chunk(
    config: RuleConfig,
    meta_vector,
    mean_eta_bar,
    still,
    packed,
    g,
    largest,
    bias,
    excess,
    rarity,
    filled,
    seeds=None,
):
    """`fallback.sense` on rows, with the arguments of `sense_chunk`.

    The attended point is theta here, so all directions are the same. The sums
    are those of d^2 and of the parameters that have seen a gradient.
    """
    rows, n = bias.shape[1], g.shape[0]
    shape = (-1, rows, n // rows)
    state = unpack(config, ops.reshape(ops.cast(packed, g.dtype), shape))
    new, d, seen = fallback.sense(config, state, ops.reshape(g, shape))
    sums = [row_sums(filled, value) for value in (d * d, seen)]
    u = ops.reshape(d, (1, n))
    return (
        _repack(new, packed, seeds),
        ops.concatenate([u] * config.directions, axis=0),
        ops.concatenate(sums, axis=0),
    )


def started(config, meta, state):
    """The state, with the initial h where no gradient was seen.

    With `lazy` h has this value already, unless a user has set all of the
    optimizer's variables to zero.
    """
    if not config.lazy:
        return state
    initial = ops.reshape(meta.h_param, (-1, 1, 1))
    return state._replace(h=ops.where(state.r[:1] > 0, state.h, initial))


def row_sums(filled, x):
    """Sums over rows without their padding.

    Args:
        filled: numbers of each row that are not padding [R]; None for all.
        x: [F, R, width].

    Returns:
        [F, R].
    """
    width = x.shape[-1]
    if filled is not None:
        column = ops.arange(width, dtype="int32")
        x = x * ops.cast(column < ops.expand_dims(filled, -1), x.dtype)
    # A product with ones: XLA's own sum along the last axis is twice as slow.
    ones = ops.ones((width, 1), x.dtype)
    flat = ops.reshape(x, (-1, width)) @ ones
    return ops.reshape(flat, x.shape[:2])


def advance_chunk(
    config: RuleConfig, at_phi, value, offset, u, rows, seeds=None
):
    """`step.advance` on rows.

    Args:
        config: the features in use.
        at_phi: scalar, 1 if the variables hold phi, 0 if they hold theta.
        value: values of the variables, [n].
        offset: phi - theta, [n], or None without attention.
        u: unscaled steps [directions, n], from `sense_chunk`.
        rows: [directions + 1, R]: scale of each direction, weight decay.
        seeds: seeds for `rounding.to_bfloat16` [1, R], None if the offset is
            not of bfloat16.

    Returns:
        The new phi and offset.
    """
    count, n = rows.shape[1], value.shape[0]
    shape = (-1, count, n // count)
    rows = ops.expand_dims(rows, -1)
    theta = ops.reshape(value, shape)
    if offset is not None:
        held = ops.reshape(ops.cast(offset, value.dtype), shape)
        theta = keep_zeros(theta, theta - at_phi * held)
    theta, phi = rule.advance(
        config, theta, ops.reshape(u, shape), rows[:-1], rows[-1:]
    )
    if offset is None:
        return ops.reshape(phi, (n,)), None
    new_offset = phi - theta
    if seeds is not None:
        # The attended point is rounded with the offset: theta is not.
        new_offset = rounding.to_bfloat16(new_offset, seeds)
        phi = theta + ops.cast(new_offset, theta.dtype)
    return ops.reshape(phi, (n,)), ops.reshape(new_offset, (n,))


@functools.cache
def compiled(function: Callable, config: RuleConfig) -> Callable:
    """`function` compiled for one config; keeps a program for each shape."""
    return backend.compile_function(functools.partial(function, config))


def over_chunks(function, config, common, plan, arguments, write):
    """Runs a chunk function over all chunks, and writes the results.

    Chunks run one after another, each call a program of its own, so that
    `write` frees a chunk's results before the next ones arrive. Inside one
    large program each call would be compiled again; there the function is
    mapped over a stack of the chunks, at the price of copying the state.

    Args:
        function: `sense_chunk` or `advance_chunk`.
        config: the features in use.
        common: arguments that all chunks share.
        plan: the chunks, and whether to map.
        arguments: function from a chunk's number to its own arguments.
        write: function from a chunk's number and its results to what is kept.

    Returns:
        What `write` returned, one entry for each chunk.
    """
    count = len(plan.chunks)
    if not plan.mapped:
        run = compiled(function, config)
        return [write(k, run(*common, *arguments(k))) for k in range(count)]
    # `map` takes no None: absent arguments and results are left out of it.
    columns = list(zip(*(arguments(k) for k in range(count)), strict=True))
    present = [column[0] is not None for column in columns]
    returned = []

    def body(slices):
        slices = iter(slices)
        own = [next(slices) if here else None for here in present]
        results = function(config, *common, *own)
        returned[:] = [result is not None for result in results]
        return tuple(result for result in results if result is not None)

    stacks = tuple(
        ops.stack(column)
        for column, here in zip(columns, present, strict=True)
        if here
    )
    results = iter(ops.map(body, stacks))
    results = [next(results) if here else None for here in returned]
    return [
        write(k, tuple(None if r is None else r[k] for r in results))
        for k in range(count)
    ]
