"""The rule on one chunk of a model, compiled; and over all its chunks.

A packed slot is [F, n]: the rows of `ParamState`, one after another. These are
the only functions that see the packing.
"""

import functools
from collections.abc import Callable

from keras import ops

from hrnn_opt import backend, rule
from hrnn_opt.config import RuleConfig
from hrnn_opt.meta_parameters import unflatten
from hrnn_opt.numerics import select
from hrnn_opt.rule import ParamState


def pack(state: ParamState):
    """The record as one array [F, ...]."""
    fields = [field for field in state if field is not None]
    return ops.concatenate(fields, axis=0)


def unpack(config: RuleConfig, packed) -> ParamState:
    """The inverse of `pack`."""
    p, s = config.param_units, config.timescales
    eta_bar = packed[p + 2 * s :] if config.relative_learning_rate else None
    return ParamState(
        packed[:p], packed[p : p + s], packed[p + s : p + 2 * s], eta_bar
    )


def sense_chunk(
    config: RuleConfig,
    meta_vector,
    finite,
    mean_eta_bar,
    packed,
    g,
    bias,
    filled,
):
    """`rule.sense` on rows, and the sums that the upper levels need.

    Args:
        config: the features in use.
        meta_vector: flat meta-parameters.
        finite: scalar; where False the state stays as it was.
        mean_eta_bar: scalar.
        packed: state [F, n].
        g: gradients [n].
        bias: [3P, R], or None.
        filled: parameters in each row that are not padding, [R].

    Returns:
        The new packed state, u [directions, n], and the rows' sums
        [P + inputs + directions + 1, R] of h, x, d^2 and seen.
    """
    rows, n = filled.shape[0], g.shape[0]
    shape = (-1, rows, n // rows)
    state = unpack(config, ops.reshape(packed, shape))
    g = ops.reshape(ops.where(finite, g, ops.zeros_like(g)), shape)
    new, sensed = rule.sense(
        config,
        unflatten(config, meta_vector),
        state,
        g,
        None if bias is None else ops.expand_dims(bias, -1),
        mean_eta_bar,
    )
    inside = ops.arange(shape[-1], dtype="int32") < ops.expand_dims(filled, -1)
    sums = ops.concatenate(
        [
            ops.sum(sensed.h_x * ops.cast(inside, g.dtype), axis=-1),
            ops.sum(sensed.d * sensed.d, axis=-1),
            ops.sum(sensed.seen, axis=-1),
        ],
        axis=0,
    )
    packed = ops.reshape(pack(select(finite, new, state)), packed.shape)
    return packed, ops.reshape(sensed.u, (-1, n)), sums


def advance_chunk(config: RuleConfig, finite, value, offset, u, rows):
    """`rule.advance` on rows.

    Args:
        config: the features in use.
        finite: scalar; where False nothing moves.
        value: the variables, [n].
        offset: phi - theta, [n], or None without attention.
        u: [directions, n], from `sense_chunk`.
        rows: [directions + 2, R]: scale of each direction, weight decay, and
            1 where the variables hold phi or 0 where they hold theta.

    Returns:
        The new phi and offset.
    """
    count, n = rows.shape[1], value.shape[0]
    shape = (-1, count, n // count)
    rows = ops.expand_dims(rows, -1)
    theta = ops.reshape(value, shape)
    if offset is not None:
        theta = theta - rows[-1:] * ops.reshape(offset, shape)
    new_theta, phi = rule.advance(
        config, theta, ops.reshape(u, shape), rows[:-2], rows[-2:-1]
    )
    new_theta, phi = ops.reshape(new_theta, (n,)), ops.reshape(phi, (n,))
    if offset is None:
        return ops.where(finite, phi, value), None
    return select(finite, (phi, phi - new_theta), (value, offset))


@functools.lru_cache(maxsize=None)
def compiled(function: Callable, config: RuleConfig) -> Callable:
    """`function` for one config; a program for each shape is kept."""
    return backend.compile_function(functools.partial(function, config))


def over_chunks(function, config, common, chunks, arguments, write):
    """Runs a chunk function over all chunks, and writes the results.

    One after another where each call is a program of its own: then `write`
    frees a chunk's results before the next one's arrive. Where everything is
    compiled as one program, that would be compiled once a chunk; there it maps
    over a stack of chunks.

    Args:
        function: `sense_chunk` or `advance_chunk`.
        config: the features in use.
        common: arguments that all chunks share.
        chunks: list of `Chunk`; of equal shape if they are to be stacked.
        arguments: function of a chunk's number, to its own arguments.
        write: function of a chunk's number and its results, to what is kept.

    Returns:
        What `write` returned, one entry a chunk.
    """
    if not (backend.one_program() and len(chunks) > 1):
        run = compiled(function, config)
        return [
            write(k, run(*common, *arguments(k))) for k in range(len(chunks))
        ]
    own = [arguments(k) for k in range(len(chunks))]
    present = [a is not None for a in own[0]]
    stacks = tuple(
        ops.stack(column)
        for column, here in zip(zip(*own, strict=True), present, strict=True)
        if here
    )

    def body(slices):
        slices = iter(slices)
        filled = [next(slices) if here else None for here in present]
        return tuple(
            x for x in function(config, *common, *filled) if x is not None
        )

    results = ops.map(body, stacks)
    if len(results) == 1:
        results = (results[0], None)
    return [
        write(k, tuple(None if r is None else r[k] for r in results))
        for k in range(len(chunks))
    ]
