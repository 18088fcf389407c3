"""One step on a model: the rule's functions, piece by piece.

The same composition as `rule.step`, for tensors of any size and number whose
state lies in variables.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from hrnn_opt import backend
from hrnn_opt.model import chunks, kernels, rounding
from hrnn_opt.model.slots import Slots
from hrnn_opt.rule import fallback, features
from hrnn_opt.rule import step as rule
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.hierarchy import SharedState
from hrnn_opt.rule.products import from_vector


class Target(NamedTuple):
    """One tensor that takes part in a step."""

    number: int  # in the optimizer's slots
    variable: Any  # holds phi, or theta where slots.holds_theta is 1
    gradient: Any
    decay: Any  # 1 - weight decay * lr


def update_model(
    config: RuleConfig,
    slots: Slots,
    targets: Sequence[Target],
    idle: Mapping[int, Any],
    lr,
    step,
):
    """Moves the targets' variables one step, and updates their state.

    If any gradient is NaN or infinite nothing changes but `Slots.skipped`.

    Args:
        config: the features in use.
        slots: the state.
        targets: all tensors that have a gradient.
        idle: the other ones' variables, by number.
        lr: learning rate, a scalar.
        step: its number, of which rounding is a function.
    """
    sizes = [slots.sizes[t.number] for t in targets]
    grads = [
        _flat(t.gradient, slots.dtype, size)
        for t, size in zip(targets, sizes, strict=True)
    ]
    finite = ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in grads]))
    assigned = slots.changing([t.number for t in targets])
    assigned += [t.variable for t in targets] + list(idle.values())

    rounding_keys = slots.rounding_keys(step, [t.number for t in targets])

    def learned():
        _step(config, slots, targets, grads, lr, rounding_keys)

    def instead():
        _fallback_step(config, slots, targets, grads, lr, rounding_keys)

    def step_all():
        if slots.guard is None:
            learned()
        else:
            slots.guard.choose(learned, instead, assigned)
        if config.attention:
            # All variables hold phi from now on.
            for t, variable in idle.items():
                shift = slots.holds_theta_as_float() * slots.offset(t)
                phi = ops.cast(backend.read(variable), slots.dtype) + shift
                variable.assign(ops.cast(phi, variable.dtype))
        slots.holds_theta.assign(0)

    backend.run_if(finite, step_all, assigned)
    slots.skipped.assign(
        slots.skipped + ops.cast(ops.logical_not(finite), "int32")
    )
    if slots.guard is not None:
        slots.guard.count(finite)


def _step(config, slots, targets, grads, lr, rounding_keys):
    sizes = tuple(slots.sizes[t.number] for t in targets)
    plan = chunks.plan(sizes, backend.one_program())
    meta_vector = backend.read(slots.meta_vector)
    meta = from_vector(config, meta_vector)
    shared = SharedState(*(_columns(slots, v, targets) for v in slots.shared))
    tensors = _tensor_state(config, slots, targets, grads)
    bias = rule.from_above(config, meta, shared, tensors)
    if bias is None:
        bias = ops.zeros((1, len(targets)), slots.dtype)

    u, sums = _sense(
        config,
        slots,
        targets,
        plan,
        (meta_vector, rule.mean_log_step(tensors)),
        grads,
        tensors.largest if config.negligible else None,
        bias,
        rounding_keys,
    )
    sums = rule.split_totals(config, sums)
    shared, tensors = rule.step_upper_levels(
        config, meta, shared, tensors, sums, ops.cast(sizes, slots.dtype)
    )
    tensors = ops.concatenate(tensors, axis=0)
    variables = (*slots.shared, slots.tensors)
    for variable, value in zip(variables, (*shared, tensors), strict=True):
        _assign_columns(slots, variable, targets, value)

    scale = rule.step_scales(config, sums.d_squared, sums.count, lr)
    decay = ops.stack([t.decay for t in targets])
    rows = ops.concatenate([scale, ops.expand_dims(decay, 0)], axis=0)
    _move(config, slots, targets, plan, u, rows, rounding_keys)


def _fallback_step(config, slots, targets, grads, lr, rounding_keys):
    """As `_step`, by the rule of `fallback`."""
    sizes = tuple(slots.sizes[t.number] for t in targets)
    plan = chunks.plan(sizes, backend.one_program())
    u, sums = _sense(
        config,
        slots,
        targets,
        plan,
        (backend.read(slots.meta_vector), ops.zeros((), slots.dtype)),
        grads,
        None,
        ops.zeros((1, len(targets)), slots.dtype),
        rounding_keys,
        kernels.fallback_chunk,
    )
    numbers = np.asarray([t.number for t in targets])
    lengths = ops.take(backend.read(slots.guard.lengths), numbers)
    unit = config.length_unit * lr
    scale = fallback.step_scale(sums[:1], sums[1:], unit, lengths)
    decay = ops.expand_dims(ops.stack([t.decay for t in targets]), 0)
    rows = ops.concatenate([scale] * config.directions + [decay], axis=0)
    _move(config, slots, targets, plan, u, rows, rounding_keys)


def _sense(
    config,
    slots,
    targets,
    plan,
    common,
    grads,
    largest,
    bias,
    rounding_keys,
    kernel=kernels.sense_chunk,
):
    """Updates the parameters' state; u of each chunk, totals [F, T].

    `common` are the meta-parameters and the mean log step length.
    """
    states = [slots.states[t.number] for t in targets]

    def arguments(k):
        chunk = plan.chunks[k]
        return (
            _join_slots(chunk, states),
            _join_flat(chunk, grads),
            None
            if largest is None
            else ops.take(largest, chunk.owner, axis=-1),
            ops.take(bias, chunk.owner, axis=-1),
            chunk.filled,
            _seeds(chunk, rounding_keys, slice(-2)),
        )

    def write(k, results):
        packed, u, row_sums = results
        _assign_slots(plan.chunks[k], states, packed)
        return u, row_sums

    results = kernels.over_chunks(
        kernel, config, common, plan, arguments, write
    )
    u, row_sums = zip(*results, strict=True)
    owner = np.concatenate([chunk.owner for chunk in plan.chunks])
    by_row = ops.transpose(ops.concatenate(row_sums, axis=-1))
    return u, ops.transpose(backend.segment_sum(by_row, owner, len(targets)))


def _move(config, slots, targets, plan, u, rows, rounding_keys):
    """Assigns the new phi and offsets."""
    values = [
        _flat(backend.read(t.variable), slots.dtype, slots.sizes[t.number])
        for t in targets
    ]
    offsets = [slots.offsets[t.number] for t in targets]
    u = list(u)
    moved = [[None] * len(slots.states[t.number]) for t in targets]

    def arguments(k):
        chunk = plan.chunks[k]
        offset = _join_slots(chunk, offsets) if config.attention else None
        own = _join_flat(chunk, values), offset, u[k]
        u[k] = None
        seeds = (
            _seeds(chunk, rounding_keys, slice(-2, -1))
            if config.attention
            else None
        )
        return *own, ops.take(rows, chunk.owner, axis=-1), seeds

    def write(k, results):
        chunk, (phi, offset) = plan.chunks[k], results
        if config.attention:
            _assign_slots(chunk, offsets, offset)
        for p, part in zip(chunk.pieces, chunks.split(chunk, phi), strict=True):
            stored = ops.cast(part, targets[p.tensor].variable.dtype)
            if stored.dtype != part.dtype and config.attention:
                # What rounding takes from phi the offset gives back to theta.
                slot = offsets[p.tensor][p.number]
                value = ops.cast(backend.read(slot), part.dtype)
                value = value + (ops.cast(stored, part.dtype) - part)
                slot.assign(_rounded(value, p, rounding_keys))
            moved[p.tensor][p.number] = stored

    at_phi = 1 - slots.holds_theta_as_float()
    kernels.over_chunks(
        kernels.advance_chunk, config, (at_phi,), plan, arguments, write
    )
    for target, pieces in zip(targets, moved, strict=True):
        whole = pieces[0] if len(pieces) == 1 else ops.concatenate(pieces)
        target.variable.assign(ops.reshape(whole, target.variable.shape))


def _seeds(chunk, rounding_keys, which):
    """Some rounding keys of a chunk's rows, for `rounding.to_bfloat16`."""
    if rounding_keys is None:
        return None
    return ops.take(rounding_keys[which], chunk.owner, axis=-1) + chunk.first


def _rounded(offset, piece, rounding_keys):
    """A piece's offset as it is kept."""
    if rounding_keys is None:
        return offset
    seeds = rounding_keys[-1:, piece.tensor : piece.tensor + 1] + piece.start
    x = ops.reshape(offset, (1, 1, piece.size))
    return ops.reshape(rounding.to_bfloat16(x, seeds), (piece.size,))


def _join_slots(chunk, slots):
    """The pieces' slots side by side."""
    return chunks.join(
        chunk, [backend.read(slots[p.tensor][p.number]) for p in chunk.pieces]
    )


def _assign_slots(chunk, slots, value):
    """The inverse of `_join_slots`."""
    parts = chunks.split(chunk, value)
    for p, part in zip(chunk.pieces, parts, strict=True):
        slots[p.tensor][p.number].assign(part)


def _flat(tensor, dtype, size):
    """As [size]: the shape of what was a sparse gradient may be unknown."""
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


def _columns(slots, variable, targets):
    """What a variable [F, T] holds for these tensors; one [F, 1] is for all."""
    if variable is None:
        return None
    value = backend.read(variable)
    if _for_each(slots, variable) and len(targets) < len(slots.sizes):
        numbers = np.asarray([t.number for t in targets])
        value = ops.take(value, numbers, axis=-1)
    return value


def _assign_columns(slots, variable, targets, value):
    """The inverse of `_columns`."""
    if variable is None:
        return
    if _for_each(slots, variable) and len(targets) < len(slots.sizes):
        numbers = np.asarray([[t.number] for t in targets])
        columns = ops.transpose(backend.read(variable))
        value = ops.transpose(
            ops.scatter_update(columns, numbers, ops.transpose(value))
        )
    variable.assign(value)


def _for_each(slots, variable) -> bool:
    """Whether it has a column for each tensor, which `h_global` has not."""
    return variable is not slots.shared.h_global


def _tensor_state(config, slots, targets, grads) -> rule.TensorState:
    """What the tensors remember, with the new `features.largest_magnitude`."""
    columns = _columns(slots, slots.tensors, targets)
    old = rule.TensorState(*ops.split(columns, columns.shape[0], axis=0))
    if not config.negligible:
        return old
    sums = ops.stack([ops.sum(ops.abs(g)) for g in grads])
    sizes = [max(slots.sizes[t.number], 1) for t in targets]
    mean = ops.expand_dims(sums / ops.cast(sizes, slots.dtype), 0)
    return old._replace(largest=features.largest_magnitude(mean, old.largest))
