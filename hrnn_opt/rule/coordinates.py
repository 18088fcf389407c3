"""Eigenbases in `step.step`: those of the matrices of a flat problem.

The same as `hrnn_opt.model.bases` does for a Keras model; `eigenbasis` says why
and has the equations. New bases are computed in every step, to be taken by the
instances where they are due.
"""

import math
from typing import Any, NamedTuple

from keras import ops

from hrnn_opt.rule import eigenbasis
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.numerics import select
from hrnn_opt.rule.segments import Segments


class BasisState(NamedTuple):
    """What is remembered of one matrix; None on a side without a basis."""

    since: Any  # gradients since the last turn, [...]
    moments: tuple  # L [..., m, m] and R [..., n, n]
    turns: tuple  # P and Q


def initial(config: RuleConfig, segments: Segments, instances, dtype):
    """A `BasisState` for each tensor, or None; None if no tensor has one."""
    found = segments.sides(config.eigenbasis)
    if not any(found):
        return None

    def square(d, diagonal):
        one = diagonal * ops.eye(d, dtype=dtype)
        return ops.broadcast_to(one, (*instances, d, d))

    def both(sides, diagonal):
        return (
            square(sides.rows, diagonal) if sides.left else None,
            square(sides.columns, diagonal) if sides.right else None,
        )

    return tuple(
        sides
        and BasisState(
            ops.zeros(instances, "int32"), both(sides, 0), both(sides, 1)
        )
        for sides in found
    )


def enter(config: RuleConfig, segments: Segments, bases, g, g_bar, tensors, lr):
    """The gradient as it is seen, after the bases may have turned.

    Args:
        config: the features in use.
        segments: where the problem's tensors lie.
        bases: from `initial` or an earlier step.
        g: finite gradient, [N, ...].
        g_bar: averages of gradients, [S, N, ...].
        tensors: the tensors' state.
        lr: learning rate, a scalar or [...].

    Returns:
        The new bases, g and g_bar, of the same shapes.
    """
    found = segments.sides(config.eigenbasis)
    parts = segments.split(g[None])
    averages = segments.split(g_bar)
    observed = []
    for sides, basis, part in zip(found, bases, parts, strict=True):
        if sides is None:
            observed.append(None)
            continue
        x = _matrices(sides, part)[0]
        there = ops.cast(ops.any(ops.not_equal(x, 0), axis=(-2, -1)), "int32")
        moments = eigenbasis.moments(x, *basis.moments)
        observed.append(
            basis._replace(since=basis.since + there, moments=moments)
        )
    own = [t for t, sides in enumerate(found) if sides is not None]
    since = ops.stack([observed[t].since for t in own])
    log_step = ops.take(tensors.log_step[0], own, axis=0)
    growth = log_step - ops.take(tensors.average[0], own, axis=0)
    log_length = log_step + ops.log(ops.cast(lr, log_step.dtype))
    due = eigenbasis.due(since, growth, log_length, config.basis_length)
    after = []
    for t, (sides, basis) in enumerate(zip(found, observed, strict=True)):
        after.append(basis)
        if sides is None:
            continue
        old = basis.turns
        new = tuple(map(eigenbasis.turned, basis.moments, old))
        new = select(ops.expand_dims(due, (-2, -1)), new, old)
        since = ops.where(due, ops.zeros_like(basis.since), basis.since)
        after[t] = basis._replace(since=since, turns=new)
        carried = _matrices(sides, averages[t])
        carried = eigenbasis.carried(carried, old, new)
        carried = _flat(carried)
        averages[t] = ops.where(due, carried, averages[t])
        x = eigenbasis.in_range(_matrices(sides, parts[t]))
        parts[t] = _flat(eigenbasis.into(x, *new))
    g = ops.concatenate(parts, axis=1)[0]
    return tuple(after), g, ops.concatenate(averages, axis=1)


def leave(config: RuleConfig, segments: Segments, bases, steps, g):
    """Steps [N, ...] in the problem's coordinates.

    Args:
        config: the features in use.
        segments: where the problem's tensors lie.
        bases: of this step.
        steps: steps in them, [N, ...].
        g: gradient in the problem's coordinates; where it is 0 nothing moves.
    """
    parts = segments.split(steps[None])
    found = segments.sides(config.eigenbasis)
    for t, (sides, basis) in enumerate(zip(found, bases, strict=True)):
        if sides is not None:
            x = _matrices(sides, parts[t])
            parts[t] = _flat(eigenbasis.out_of(x, *basis.turns))
    steps = ops.concatenate(parts, axis=1)[0]
    return ops.where(ops.equal(g, 0), ops.zeros_like(steps), steps)


def _matrices(sides, x):
    """[F, m n, ...] as [F, ..., m, n]: instances first, as products ask for."""
    instances = x.shape[2:]
    x = ops.reshape(x, (x.shape[0], sides.rows, sides.columns, *instances))
    return ops.moveaxis(x, (1, 2), (-2, -1))


def _flat(x):
    """The inverse of `_matrices`."""
    x = ops.moveaxis(x, (-2, -1), (1, 2))
    return ops.reshape(x, (x.shape[0], math.prod(x.shape[1:3]), *x.shape[3:]))
