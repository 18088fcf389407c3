"""One step on a model: the rule's functions, piece by piece.

The same composition as `rule.step`, for tensors of any size and number whose
state lies in variables.
"""

import numpy as np
from keras import ops

from hrnn_opt import backend, chunks, hierarchy, kernels, rule
from hrnn_opt.config import RuleConfig
from hrnn_opt.hierarchy import SharedState
from hrnn_opt.meta_parameters import unflatten
from hrnn_opt.numerics import select
from hrnn_opt.slots import Slots


def update_model(
    config: RuleConfig,
    slots: Slots,
    tensors,
    variables,
    grads,
    lr,
    decay,
    holding_theta=frozenset(),
):
    """Moves `variables` one step and updates their state, in place.

    Args:
        config: the features in use.
        slots: the state.
        tensors: numbers, in `slots`, of the tensors that have a gradient.
        variables: their variables, which hold phi (theta where
            `slots.holds_theta` is 1, or the number is in `holding_theta`).
        grads: their gradients.
        lr: learning rate, a scalar.
        decay: 1 - weight decay * lr for each of them.
        holding_theta: tensors whose variables hold theta before and after.
    """
    dtype = slots.dtype
    flat = [_flat(backend.densify(g), dtype) for g in grads]
    finite = ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in flat]))
    sizes = tuple(slots.sizes[t] for t in tensors)
    plan = chunks.plan(sizes, uniform=backend.one_program())
    states = [slots.states[t] for t in tensors]
    meta_vector = backend.read(slots.meta_vector)
    meta = unflatten(config, meta_vector)
    shared = _read_shared(slots, tensors)

    bias = hierarchy.param_bias(meta, shared)
    mean_eta_bar = ops.zeros((), dtype)
    if config.relative_learning_rate:
        sums = [ops.sum(state[-1]) for slot in states for state in slot]
        mean_eta_bar = ops.sum(ops.stack(sums)) / sum(sizes)

    def sense_arguments(k):
        chunk = plan[k]
        return (
            chunks.join(
                chunk,
                [
                    backend.read(states[p.tensor][p.number])
                    for p in chunk.pieces
                ],
            ),
            _join_flat(chunk, flat),
            None if bias is None else ops.take(bias, chunk.owner, axis=-1),
            ops.convert_to_tensor(chunk.filled),
        )

    def write_state(k, results):
        packed, u, row_sums = results
        pieces = plan[k].pieces
        for p, value in zip(pieces, chunks.split(plan[k], packed), strict=True):
            states[p.tensor][p.number].assign(value)
        return u, row_sums

    sensed = kernels.over_chunks(
        kernels.sense_chunk,
        config,
        (meta_vector, finite, mean_eta_bar),
        plan,
        sense_arguments,
        write_state,
    )
    u = [s[0] for s in sensed]
    totals = _totals(plan, [s[1] for s in sensed], len(sizes))

    h_x = config.param_units + config.inputs
    scale = rule.step_scales(config, totals[h_x:-1], totals[-1:], lr)
    at_phi = 1 - ops.cast(slots.holds_theta, dtype)
    at_phi = [at_phi * (t not in holding_theta) for t in tensors]
    per_tensor = ops.concatenate(
        [scale, ops.stack([ops.stack(decay), ops.stack(at_phi)])], axis=0
    )
    mean_h_x = totals[:h_x] / ops.cast(sizes, dtype)
    new_shared = hierarchy.step_shared(meta, shared, mean_h_x)

    new = _move(config, slots, tensors, variables, plan, u, per_tensor, finite)
    for t, variable, (phi, offset) in zip(tensors, variables, new, strict=True):
        if t in holding_theta:
            theta = ops.cast(phi - offset, variable.dtype)
            phi = ops.where(finite, theta, backend.read(variable))
        _write(variable, slots.offsets[t], phi, offset)
    _write_shared(slots, tensors, select(finite, new_shared, shared))
    skipped = ops.cast(ops.logical_not(finite), "int32")
    slots.skipped.assign(slots.skipped + skipped)
    slots.holds_theta.assign(slots.holds_theta * skipped)


def _flat(tensor, dtype):
    return ops.reshape(ops.cast(tensor, dtype), (-1,))


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


def _totals(plan, row_sums, tensors: int):
    """The rows' sums [F, R] of all chunks, summed over tensors: [F, T]."""
    owner = np.concatenate([chunk.owner for chunk in plan])
    rows = ops.transpose(ops.concatenate(row_sums, axis=-1))
    return ops.transpose(
        ops.segment_sum(rows, ops.convert_to_tensor(owner), tensors)
    )


def _move(config, slots, tensors, variables, plan, u, per_tensor, finite):
    """The new phi of all variables, and the new offsets (or None)."""

    def flatten(values):
        return [_flat(backend.read(v), slots.dtype) for v in values]

    values = flatten(variables)
    if config.attention:
        offsets = flatten([slots.offsets[t] for t in tensors])

    def arguments(k):
        chunk = plan[k]
        return (
            _join_flat(chunk, values),
            _join_flat(chunk, offsets) if config.attention else None,
            u[k],
            ops.take(per_tensor, chunk.owner, axis=-1),
        )

    new = [([], []) for _ in tensors]

    def collect(k, results):
        for result, which in zip(results, range(2), strict=True):
            if result is None:
                continue
            parts = chunks.split(plan[k], result)
            for p, part in zip(plan[k].pieces, parts, strict=True):
                new[p.tensor][which].append((p.start, part))

    kernels.over_chunks(
        kernels.advance_chunk, config, (finite,), plan, arguments, collect
    )
    return [
        tuple(_whole(pieces, v.shape) for pieces in pair)
        for v, pair in zip(variables, new, strict=True)
    ]


def _write(variable, slot, phi, offset):
    """Assigns both; what rounding takes from phi, the offset gives back."""
    stored = ops.cast(phi, variable.dtype)
    variable.assign(stored)
    if slot is not None:
        if stored.dtype != phi.dtype:
            offset = offset + (ops.cast(stored, phi.dtype) - phi)
        slot.assign(offset)


def _whole(pieces, shape):
    """The tensor of its pieces (start, part); None of none."""
    if not pieces:
        return None
    parts = [part for _, part in sorted(pieces, key=lambda p: p[0])]
    whole = parts[0] if len(parts) == 1 else ops.concatenate(parts)
    return ops.reshape(whole, shape)


def _read_shared(slots, tensors):
    """The upper levels' state of these tensors."""
    h_tensor, h_global = (
        None if v is None else backend.read(v) for v in slots.shared
    )
    if h_tensor is not None and len(tensors) < len(slots.sizes):
        h_tensor = ops.take(h_tensor, np.asarray(tensors), axis=-1)
    return SharedState(h_tensor, h_global)


def _write_shared(slots, tensors, shared):
    if shared.h_tensor is not None:
        h_tensor = shared.h_tensor
        if len(tensors) < len(slots.sizes):
            columns = ops.transpose(backend.read(slots.shared.h_tensor))
            h_tensor = ops.transpose(
                ops.scatter_update(
                    columns,
                    np.asarray(tensors)[:, None],
                    ops.transpose(h_tensor),
                )
            )
        slots.shared.h_tensor.assign(h_tensor)
    if shared.h_global is not None:
        slots.shared.h_global.assign(shared.h_global)
