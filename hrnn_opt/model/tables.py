"""Large embeddings: a step touches the rows that have a gradient.

With `lazy` an element without a gradient stays as it is, so rows that are not
in the minibatch need no work. TensorFlow tells which rows are
(`IndexedSlices`). The state of such a tensor, a *table*, is [rows, F width], a
row's numbers side by side. Rows are gathered, updated like any elements, and
scattered: as many as there are indices in the gradient, so that shapes do not
depend on how many are repeated. A dense gradient counts as one of all rows.

Weight decay acts only on the rows that are touched. An embedding is an ordinary
dense tensor where updates by rows are not possible: with attention (where all
variables move to the attended point), guard, gradient accumulation, a state in
bfloat16, several replicas (any `tf.distribute` strategy), and on other
backends.
"""

import math
from typing import Any, NamedTuple

from keras import ops

from hrnn_opt import backend
from hrnn_opt.model import chunks, kernels, replicas
from hrnn_opt.rule import elements, features, levels
from hrnn_opt.rule import step as rule
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.numerics import select
from hrnn_opt.rule.products import from_vector, with_one_product

SMALLEST = 2**14
"""Parameters of the smallest table: smaller ones are faster packed with other
tensors."""


class Rows(NamedTuple):
    """Some rows of a table."""

    ids: Any  # [k]
    gradient: Any  # [k, width]
    real: Any  # [k] 1, but 0 for repetitions of the last row


def allowed(optimizer) -> bool:
    """Whether an optimizer's arguments, backend and strategy allow tables."""
    return (
        backend.NAME == "tensorflow"
        and optimizer.config.lazy
        and not optimizer.config.attention
        and not optimizer.guard
        and not optimizer.gradient_accumulation_steps
        and optimizer.state_dtype == "float32"
        and not replicas.in_strategy()
    )


def is_table(variable) -> bool:
    """Whether a variable is likely to get sparse gradients, by its name.

    A wrong guess, either way, gives the same steps, but slower; unless
    `RuleConfig.wide_inputs` counts all rows as inputs (`slots.inputs`).
    """
    size = math.prod(variable.shape)
    return is_embedding(variable) and size >= SMALLEST


def is_embedding(variable) -> bool:
    """Whether a variable is an embedding of any size, by its name."""
    return len(variable.shape) == 2 and "embedding" in variable.name.lower()


def all_rows(gradient) -> list[Rows]:
    """A dense gradient [rows, width], in blocks that bound the memory."""
    count, width = gradient.shape
    block = count
    if not backend.one_program():
        block = max(1, chunks.PIECE // width)
    blocks = []
    for start in range(0, count, block):
        own = gradient[start : start + block]
        ids = ops.arange(start, start + own.shape[0], dtype="int32")
        blocks.append(Rows(ids, own, ops.ones_like(own[:, 0])))
    return blocks


def some_rows(gradient, ids, number) -> list[Rows]:
    """The first `number` rows of a gradient [k, width], and their ids [k].

    The last of them is repeated to fill the k rows: it is then written several
    times with the same values.
    """
    position = ops.arange(ops.shape(ids)[0], dtype="int32")
    source = ops.minimum(position, number - 1)
    real = ops.cast(position < number, gradient.dtype)
    return [Rows(ops.take(ids, source), ops.take(gradient, source, 0), real)]


def sum_of_magnitudes(blocks: list[Rows]):
    """Sum of |g| over a table, a scalar."""
    return ops.sum(
        _total(
            [
                ops.expand_dims(ops.sum(ops.abs(b.gradient), -1) * b.real, 0)
                for b in blocks
            ]
        )
    )


def sense(config: RuleConfig, state, blocks, common, own):
    """Updates the rows' state.

    Args:
        config: the features in use.
        state: variable [rows, F width].
        blocks: the rows that have a gradient.
        common: meta-parameters, mean log step length, `Begun.still`.
        own: largest (or None), bias, excess and rarity (or None) of the
            table, [., 1] each.

    Returns:
        u of each block [k, width], and `levels.totals` of the table [F, 1].
    """
    run = kernels.compiled(sense_rows, config)
    u, sums = [], []
    for block in blocks:
        packed = backend.gather_rows(state, block.ids)
        packed, moves, row_sums = run(
            *common, packed, block.gradient, block.real, *own
        )
        backend.scatter_rows(state, block.ids, packed)
        u.append(moves)
        sums.append(row_sums)
    return u, _total(sums)


def _total(sums):
    """Sums over rows [F, k] of all blocks, [F, 1], one row after another.

    In this order rows of zeros, which are not touched, do not change the
    result.
    """
    by_row = ops.transpose(ops.concatenate(sums, axis=-1))
    owner = ops.zeros_like(by_row[:, 0], dtype="int32")
    return ops.transpose(backend.segment_sum(by_row, owner, 1))


def move(config: RuleConfig, variable, blocks, u, scales):
    """Assigns the rows' new values.

    Args:
        config: the features in use.
        variable: [rows, width].
        blocks: the rows that have a gradient.
        u: u of each block, from `sense`.
        scales: scale and weight decay of the table, [2].
    """
    run = kernels.compiled(advance_rows, config)
    for block, own in zip(blocks, u, strict=True):
        value = backend.gather_rows(variable, block.ids)
        moved = run(ops.cast(value, own.dtype), own, scales)
        stored = ops.cast(moved, variable.dtype)
        backend.scatter_rows(variable, block.ids, stored)


def sense_rows(
    config: RuleConfig,
    meta_vector,
    mean_eta_bar,
    still,
    packed,
    g,
    real,
    largest,
    bias,
    excess,
    rarity,
):
    """`kernels.sense_chunk` for rows [k, width] of a single tensor.

    Args:
        config: the features in use.
        meta_vector: flat meta-parameters.
        mean_eta_bar: scalar.
        still: boolean, whether the state must not change.
        packed: state [k, F width].
        g: finite gradients [k, width].
        real: 1 for rows that count in sums, else 0 [k].
        largest: `features.largest_magnitude` of the tensor [1, 1], or None
            where nothing is negligible.
        bias: `hierarchy.param_bias` of the tensor [3P or 3P + 1, 1].
        excess: excess log step length (`rates.follow`) of the tensor [1, 1].
        rarity: `levels.rarity` of the tensor [2, 1], or None.

    Returns:
        The new state, u [k, width], and the rows' `levels.totals` [., k].
    """
    width = g.shape[1]
    packed = ops.reshape(packed, (-1, config.state_rows, width))
    state = kernels.unpack(config, ops.transpose(packed, (1, 0, 2)))
    g = ops.expand_dims(g, 0)
    present = ops.not_equal(g, 0)
    if largest is not None:
        largest = ops.expand_dims(largest, -1)
        g = features.without_negligible(g, largest, config.negligible)
    meta = with_one_product(from_vector(config, meta_vector))
    new, sensed = elements.sense(
        config,
        meta,
        kernels.started(config, meta, state),
        g,
        ops.expand_dims(bias, -1),
        mean_eta_bar,
        ops.expand_dims(excess, -1),
        None if rarity is None else ops.expand_dims(rarity, -1),
        present,
    )
    sums = levels.totals(
        config, new, sensed, lambda x: ops.sum(x, axis=-1) * real
    )
    kept = select(still, state, new)
    packed = ops.transpose(kernels.pack(kept), (1, 0, 2))
    return (
        ops.reshape(packed, (-1, config.state_rows * width)),
        sensed.u[0],
        sums,
    )


def advance_rows(config: RuleConfig, value, u, scales):
    """`step.advance` on rows [k, width] of a single tensor."""
    return rule.advance(config, value, u[None], scales[0], scales[1])[0][0]


def as_piece(state, piece: chunks.Piece, width: int):
    """The part [F, n] of a table's state that would be a piece's slot."""
    first, last = piece.start // width, -(-piece.stop // width)
    rows = ops.reshape(state[first:last], (last - first, -1, width))
    flat = ops.transpose(rows, (1, 0, 2))
    flat = ops.reshape(flat, (flat.shape[0], -1))
    begin = piece.start - first * width
    return flat[:, begin : begin + piece.size]


def from_pieces(pieces: list, width: int):
    """A table's state, from its pieces' slots [F, n]."""
    flat = ops.concatenate(pieces, axis=-1)
    rows = ops.reshape(flat, (flat.shape[0], -1, width))
    rows = ops.transpose(rows, (1, 0, 2))
    return ops.reshape(rows, (rows.shape[0], -1))
