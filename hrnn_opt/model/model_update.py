"""One step on a model: the rule's functions, piece by piece.

This is the same composition as `rule.step`, for tensors of any size and number,
whose state is held in variables.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from hrnn_opt import backend
from hrnn_opt.model import (
    bases,
    chunks,
    kernels,
    rates,
    rounding,
    tables,
    upper,
)
from hrnn_opt.model.attended import keep_zeros
from hrnn_opt.model.slots import Slots
from hrnn_opt.rule import fallback
from hrnn_opt.rule.config import RuleConfig


class Target(NamedTuple):
    """One tensor that takes part in a step."""

    number: int  # in the optimizer's slots
    variable: Any  # holds phi, or theta where slots.holds_theta is 1
    gradient: Any
    decay: Any  # 1 - weight decay * lr
    rows: list | None = None  # `tables.Rows` if it is a table


def update_model(
    config: RuleConfig,
    slots: Slots,
    targets: Sequence[Target],
    idle: Mapping[int, Any],
    lr,
    step,
    frozen: Collection[int] = (),
):
    """Moves the targets' variables one step, and updates their state.

    If any gradient is NaN or infinite nothing changes but `Slots.skipped`; at
    a learning rate of 0 nothing changes at all.

    Args:
        config: the features in use.
        slots: the state.
        targets: all tensors that have a gradient.
        idle: variables of the other tensors, by number.
        lr: learning rate, a scalar.
        step: number of the step, of which the rounding is a function.
        frozen: numbers of the idle tensors that are no longer trained: these
            stay at theta.
    """
    # Tables come last.
    targets = sorted(targets, key=lambda t: t.rows is not None)
    grads = [
        _flat(t.gradient, slots.dtype, slots.sizes[t.number])
        if t.rows is None
        else t.gradient
        for t in targets
    ]
    finite = ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in grads]))
    assigned = slots.changing([t.number for t in targets])
    assigned += [t.variable for t in targets] + list(idle.values())
    assigned += [offset for t in frozen for offset in slots.offsets[t]]

    rounding_keys = slots.rounding_keys(step, [t.number for t in targets])

    def step_all():
        still = rates.still(backend.read(slots.rates.reference), lr)
        seen = bases.enter(config, slots, targets, grads, lr, still)
        arguments = config, slots, targets, seen, grads, lr, rounding_keys
        if slots.guard is None:
            _step(*arguments)
        else:
            slots.guard.choose(
                lambda: _step(*arguments),
                lambda: _fallback_step(*arguments),
                assigned,
            )
        if config.attention:
            # All variables hold phi from now on.
            for t, variable in idle.items():
                value = backend.read(variable)
                old = ops.cast(value, slots.dtype)
                held = slots.holds_theta_as_float()
                if t in frozen:
                    new = keep_zeros(old, old - (1 - held) * slots.offset(t))
                    for offset in slots.offsets[t]:
                        offset.assign(ops.zeros_like(offset))
                else:
                    new = old + held * slots.offset(t)
                variable.assign(ops.cast(new, variable.dtype))
        slots.holds_theta.assign(0)

    backend.run_if(ops.logical_and(finite, lr > 0), step_all, assigned)
    slots.skipped.assign(
        slots.skipped + ops.cast(ops.logical_not(finite), "int32")
    )
    if slots.guard is not None:
        slots.guard.count(finite)


def _step(config, slots, targets, grads, raw, lr, rounding_keys):
    sizes = tuple(slots.sizes[t.number] for t in targets)
    dense = sum(t.rows is None for t in targets)
    plan = _plan(sizes[:dense])
    meta_vector = backend.read(slots.meta_vector)
    numbers = np.asarray([t.number for t in targets], "int32")
    numbers = ops.convert_to_tensor(numbers)
    variables = (*slots.shared, slots.tensors)
    state = tuple(None if v is None else backend.read(v) for v in variables)
    begun = upper.traced(upper.begin, config)(
        meta_vector,
        numbers,
        state,
        rates.Rates(*map(backend.read, slots.rates)),
        _magnitudes(slots, targets, grads) if config.negligible else None,
        ops.cast(sizes, slots.dtype),
        lr,
    )
    for variable, value in zip(slots.rates, begun.rates, strict=True):
        variable.assign(value)
    common = meta_vector, begun.mean_log_step, begun.still
    u, sums = _sense(
        config,
        slots,
        targets[:dense],
        plan,
        common,
        grads[:dense],
        begun.largest,
        begun.bias,
        begun.excess,
        begun.rarity,
        rounding_keys,
    )
    for column, target in enumerate(targets[dense:], dense):
        own = [
            None if x is None else x[:, column : column + 1]
            for x in (
                begun.largest,
                begun.bias,
                begun.excess,
                begun.rarity,
            )
        ]
        moves, total = tables.sense(
            config, slots.states[target.number][0], target.rows, common, own
        )
        u.append(moves)
        sums.append(total)
    state, rows = upper.traced(upper.finish, config)(
        meta_vector,
        numbers,
        state,
        begun,
        ops.concatenate(sums, axis=-1),
        ops.cast(sizes, slots.dtype),
        ops.stack([t.decay for t in targets]),
        slots.shares_of([t.number for t in targets]),
        lr,
    )
    for variable, value in zip(variables, state, strict=True):
        if variable is not None:
            variable.assign(value)
    for column, target in enumerate(targets[dense:], dense):
        tables.move(
            config,
            target.variable,
            target.rows,
            u[column - len(targets)],
            rows[:, column],
        )
    u = u[: len(plan.chunks)]
    _move(config, slots, targets[:dense], raw, plan, u, rows, rounding_keys)


def _fallback_step(config, slots, targets, grads, raw, lr, rounding_keys):
    """`_step` with the rule of `fallback`."""
    sizes = tuple(slots.sizes[t.number] for t in targets)
    plan = _plan(sizes)
    u, sums = _sense(
        config,
        slots,
        targets,
        plan,
        (
            backend.read(slots.meta_vector),
            ops.zeros((), slots.dtype),
            ops.zeros((), "bool"),
        ),
        grads,
        None,
        *(ops.zeros((1, len(targets)), slots.dtype) for _ in range(2)),
        None,
        rounding_keys,
        kernels.fallback_chunk,
    )
    numbers = np.asarray([t.number for t in targets])
    lengths = ops.take(backend.read(slots.guard.lengths), numbers)
    shares = slots.shares_of([t.number for t in targets])
    unit = config.length_unit * lr * shares
    sums = ops.concatenate(sums, axis=-1)
    scale = fallback.step_scale(sums[:1], sums[1:], unit, lengths)
    decay = ops.expand_dims(ops.stack([t.decay for t in targets]), 0)
    rows = ops.concatenate([scale] * config.directions + [decay], axis=0)
    _move(config, slots, targets, raw, plan, u, rows, rounding_keys)


def _plan(sizes):
    one = backend.one_program()
    return chunks.plan(sizes, one, blocks=backend.COMPILES and not one)


def _sense(
    config,
    slots,
    targets,
    plan,
    common,
    grads,
    largest,
    bias,
    excess,
    rarity,
    rounding_keys,
    kernel=kernels.sense_chunk,
):
    """Updates the parameters' state; gives u of each chunk, [totals [F, T]].

    Both lists are empty if there are no chunks.

    `common` holds the meta-parameters, the mean log step length, and whether
    the state must not change.
    """
    states = [slots.states[t.number] for t in targets]
    parts = {}

    def arguments(k):
        chunk = plan.chunks[k]
        return (
            _join_slots(chunk, states),
            _join_flat(chunk, grads),
            None if largest is None else backend.columns(largest, chunk.owner),
            backend.columns(bias, chunk.owner),
            backend.columns(excess, chunk.owner),
            None if rarity is None else backend.columns(rarity, chunk.owner),
            chunk.filled,
            _seeds(chunk, rounding_keys, slice(-2)),
        )

    def write(k, results):
        packed, u, row_sums = results
        chunk = plan.chunks[k]
        _assign_parts(chunk, states, chunks.split(chunk, packed), parts)
        return u, row_sums

    results = kernels.over_chunks(
        kernel, config, common, plan, arguments, write
    )
    if not results:
        return [], []
    u, row_sums = zip(*results, strict=True)
    owner = np.concatenate([chunk.owner for chunk in plan.chunks])
    by_row = ops.transpose(ops.concatenate(row_sums, axis=-1))
    sums = backend.segment_sum(by_row, owner, len(targets))
    return list(u), [ops.transpose(sums)]


def _move(config, slots, targets, raw, plan, u, rows, rounding_keys):
    """Assigns the new phi and offsets.

    A matrix with a basis starts at 0 in it: `raw`, the gradients in the model's
    coordinates, say which elements its step moves.
    """
    values = [
        _flat(backend.read(t.variable), slots.dtype, slots.sizes[t.number])
        for t in targets
    ]
    starts = [
        ops.zeros_like(value) if t.number in slots.bases else value
        for t, value in zip(targets, values, strict=True)
    ]
    offsets = [slots.offsets[t.number] for t in targets]
    u, parts = list(u), {}
    moved = [[] for _ in targets]

    def arguments(k):
        chunk = plan.chunks[k]
        offset = _join_slots(chunk, offsets) if config.attention else None
        own = _join_flat(chunk, starts), offset, u[k]
        u[k] = None
        seeds = (
            _seeds(chunk, rounding_keys, slice(-2, -1))
            if config.attention
            else None
        )
        return *own, backend.columns(rows, chunk.owner), seeds

    def write(k, results):
        chunk, (phi, offset) = plan.chunks[k], results
        lost = []
        for p, part in zip(chunk.pieces, chunks.split(chunk, phi), strict=True):
            target = targets[p.tensor]
            if target.number in slots.bases:
                moved[p.tensor].append(part)
                continue
            stored = ops.cast(part, target.variable.dtype)
            moved[p.tensor].append(stored)
            same = stored.dtype == part.dtype
            lost.append(None if same else ops.cast(stored, part.dtype) - part)
        if not config.attention:
            return
        # The offset compensates the rounding of phi, so theta keeps its
        # precision.
        kept = [
            part
            if less is None
            else _rounded(ops.cast(part, less.dtype) + less, p, rounding_keys)
            for p, part, less in zip(
                chunk.pieces, chunks.split(chunk, offset), lost, strict=True
            )
        ]
        _assign_parts(chunk, offsets, kept, parts)

    at_phi = 1 - slots.holds_theta_as_float()
    kernels.over_chunks(
        kernels.advance_chunk, config, (at_phi,), plan, arguments, write
    )
    for k, (target, pieces) in enumerate(zip(targets, moved, strict=True)):
        whole = pieces[0] if len(pieces) == 1 else ops.concatenate(pieces)
        if target.number in slots.bases:
            basis = slots.bases[target.number]
            step = bases.leave(basis, whole, raw[k])
            whole = target.decay * values[k] + step
            whole = ops.cast(whole, target.variable.dtype)
        target.variable.assign(ops.reshape(whole, target.variable.shape))


def _seeds(chunk, rounding_keys, which):
    """Some rounding keys of a chunk's rows, for `rounding.to_bfloat16`."""
    if rounding_keys is None:
        return None
    return backend.columns(rounding_keys[which], chunk.owner) + chunk.first


def _rounded(offset, piece, rounding_keys):
    """A piece's offset as it is stored."""
    if rounding_keys is None:
        return offset
    seeds = rounding_keys[-1:, piece.tensor : piece.tensor + 1] + piece.start
    x = ops.reshape(offset, (1, 1, piece.size))
    return ops.reshape(rounding.to_bfloat16(x, seeds), (piece.size,))


def _join_slots(chunk, slots):
    """The pieces' slots side by side."""
    return chunks.join(
        chunk,
        [
            p.of_slot(backend.read(slots[p.tensor][p.number]))
            for p in chunk.pieces
        ],
    )


def _assign_parts(chunk, slots, values, parts):
    """Assigns the pieces' values to slots, each as soon as it is complete.

    The inverse of `_join_slots`, after `chunks.split`. `parts` keeps the values
    of slots that go on in the next chunk.
    """
    for p, value in zip(chunk.pieces, values, strict=True):
        slot = slots[p.tensor][p.number]
        own = parts.setdefault((p.tensor, p.number), [])
        own.append(value)
        if sum(part.shape[-1] for part in own) == slot.shape[-1]:
            del parts[p.tensor, p.number]
            slot.assign(
                own[0] if len(own) == 1 else ops.concatenate(own, axis=-1)
            )


def _flat(tensor, dtype, size):
    """As [size]: the shape of a formerly sparse gradient may be unknown."""
    return ops.reshape(ops.cast(tensor, dtype), (size,))


def _join_flat(chunk, flat):
    return chunks.join(
        chunk,
        [
            flat[p.tensor]
            if p.size == flat[p.tensor].shape[0]
            else flat[p.tensor][p.start : p.stop]
            for p in chunk.pieces
        ],
    )


def _magnitudes(slots, targets, grads):
    """Mean |g| of each target, [T]."""
    sums = ops.stack(
        [
            ops.sum(ops.abs(g))
            if target.rows is None
            else tables.sum_of_magnitudes(target.rows)
            for target, g in zip(targets, grads, strict=True)
        ]
    )
    sizes = [slots.sizes[t.number] for t in targets]
    return sums / ops.cast(sizes, slots.dtype)
