"""The eigenbases of a model's matrices, as Keras variables.

Each matrix has, on each side that is short enough, the second moments of its
gradients and a basis; see `rule.eigenbasis`. They are of the dtype of the
computations, whatever that of the parameters' state.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from hrnn_opt import backend
from hrnn_opt.model import rates, tables
from hrnn_opt.rule import eigenbasis
from hrnn_opt.rule.config import RuleConfig
from hrnn_opt.rule.state import TensorState

PERIOD = eigenbasis.PERIOD


class Basis(NamedTuple):
    """Variables of one tensor; None on a side without a basis.

    All are 0 at first, as everything is after a user has set all of the
    optimizer's variables to zero.
    """

    sides: eigenbasis.Sides
    since: Any  # number of gradients that were seen since the last turn
    moments: tuple  # L [m, m] and R [n, n]
    turns: tuple  # P - 1 [m, m] and Q - 1 [n, n]

    @property
    def variables(self) -> list:
        """All of them."""
        own = self.since, *self.moments, *self.turns
        return [v for v in own if v is not None]

    def matrices_of(self):
        """P and Q, None on a side without a basis."""
        return tuple(
            None if v is None else backend.read(v) + _one(v) for v in self.turns
        )

    def assign(self, turns):
        """Sets P and Q."""
        for variable, value in zip(self.turns, turns, strict=True):
            if variable is not None:
                variable.assign(value - _one(variable))

    def matrices(self, flat):
        """Arrays [..., m n] as [..., m, n]."""
        return ops.reshape(
            flat, (*flat.shape[:-1], self.sides.rows, self.sides.columns)
        )


def sides_of(config: RuleConfig, variables) -> dict[int, eigenbasis.Sides]:
    """How those of a model's tensors that have bases are matrices, by number.

    Those of `eigenbasis.sides_of_all`, without embeddings, whose rows live in
    their own time.

    Args:
        config: the features in use.
        variables: variables of the model.
    """
    shapes = [tuple(v.shape) for v in variables]
    found = eigenbasis.sides_of_all(shapes, config.eigenbasis)
    return {
        t: sides
        for t, (sides, variable) in enumerate(
            zip(found, variables, strict=True)
        )
        if sides is not None and not tables.is_embedding(variable)
    }


def created(config: RuleConfig, variables, add) -> dict[int, Basis]:
    """The bases of a model's tensors, by number.

    Args:
        config: the features in use.
        variables: variables of the model.
        add: function of name, shape and dtype, which makes a variable.
    """
    found = {}
    for t, sides in sides_of(config, variables).items():
        lengths = (
            ("left", sides.left, sides.rows),
            ("right", sides.right, sides.columns),
        )
        found[t] = Basis(
            sides,
            add(f"since_{t}", (), dtype="int32"),
            tuple(
                add(f"moments_{t}_{side}", (d, d)) if present else None
                for side, present, d in lengths
            ),
            tuple(
                add(f"basis_{t}_{side}", (d, d)) if present else None
                for side, present, d in lengths
            ),
        )
    return found


def enter(config: RuleConfig, slots, targets, grads, lr, still) -> list:
    """The gradients as the rule sees them; updates moments and bases.

    Where one tensor is due, all that have a gradient get new bases, see
    `eigenbasis.due`.

    Args:
        config: the features in use.
        slots: the state.
        targets: the tensors of this step.
        grads: finite gradients, flat but for those of tables.
        lr: learning rate, a scalar above 0.
        still: boolean, whether the state must not change.

    Returns:
        The gradients, those of matrices in their bases.
    """
    own = [
        (k, slots.bases[t.number], slots.states[t.number])
        for k, t in enumerate(targets)
        if t.number in slots.bases
    ]
    if not own:
        return list(grads)
    numbers = [targets[k].number for k, _, _ in own]
    changing = [v for _, basis, state in own for v in basis.variables + state]

    def observe():
        for k, basis, _ in own:
            x = basis.matrices(grads[k])
            new = eigenbasis.moments(x, *map(_read, basis.moments))
            for variable, value in zip(basis.moments, new, strict=True):
                if variable is not None:
                    variable.assign(value)
            there = ops.any(ops.not_equal(x, 0))
            basis.since.assign(basis.since + ops.cast(there, "int32"))
        since = ops.stack([backend.read(basis.since) for _, basis, _ in own])
        lengths = _lengths(slots, numbers, lr)
        due = eigenbasis.due(since, *lengths, config.basis_length)
        backend.run_if(due, turn, changing)

    def turn():
        for _, basis, state in own:
            _turn(config, basis, state, slots.dtype)

    backend.run_if(ops.logical_not(still), observe, changing)
    seen = list(grads)
    for k, basis, _ in own:
        x = eigenbasis.in_range(basis.matrices(grads[k]))
        x = eigenbasis.into(x, *basis.matrices_of())
        seen[k] = ops.reshape(x, (-1,))
    return seen


def leave(basis: Basis, steps, gradient):
    """Flat steps in the model's coordinates, 0 where there is no gradient.

    Args:
        basis: the tensor's basis.
        steps: steps [m n] in it.
        gradient: gradient [m n] in the model's coordinates.
    """
    x = eigenbasis.out_of(basis.matrices(steps), *basis.matrices_of())
    x = ops.reshape(x, (-1,))
    return ops.where(ops.equal(gradient, 0), ops.zeros_like(x), x)


def additional(sides, dtype: str) -> tuple:
    """What a matrix with a basis adds to a step, and what its turn adds.

    Args:
        sides: `eigenbasis.Sides` of the matrix.
        dtype: dtype of the computations.

    Returns:
        Two functions of nothing that compute as much, on random numbers.
    """
    rng = np.random.default_rng(0)

    def array(*shape):
        return ops.cast(rng.normal(size=shape), dtype)

    x = array(sides.rows, sides.columns)
    own = (
        array(sides.rows, sides.rows) if sides.left else None,
        array(sides.columns, sides.columns) if sides.right else None,
    )

    # Of a function of its own TensorFlow would warn that it is traced often.
    return (
        functools.partial(_one_step, x, own),
        functools.partial(_one_turn, x, own),
    )


def _one_step(x, own):
    seen = eigenbasis.into(eigenbasis.in_range(x), *own)
    moved = eigenbasis.out_of(seen, *own)
    return *eigenbasis.moments(x, *own), moved


def _one_turn(x, own):
    new = tuple(eigenbasis.turned(moment, moment) for moment in own)
    return *new, eigenbasis.carried(x, own, new)


def _lengths(slots, numbers, lr):
    """Growth and log lengths of matrices, as `eigenbasis.due` asks for them."""
    tensors = TensorState(*ops.unstack(backend.read(slots.tensors)))
    debt = ops.take(backend.read(slots.rates.debt)[0], numbers, axis=0)
    log_step = ops.take(tensors.log_step, numbers, axis=0)
    # Models keep averages less the debt.
    growth = log_step - debt - ops.take(tensors.average, numbers, axis=0)
    return growth, log_step + ops.log(rates.lent(lr, debt))


def _turn(config, basis, state, dtype):
    """New bases of one tensor; the averages of its gradients follow."""
    old = basis.matrices_of()
    new = tuple(
        eigenbasis.turned(_read(moment), turn)
        for moment, turn in zip(basis.moments, old, strict=True)
    )
    start = config.param_units
    stop = start + config.timescales
    pieces = [backend.read(piece) for piece in state]
    averages = ops.concatenate(
        [ops.cast(piece[start:stop], dtype) for piece in pieces], axis=-1
    )
    averages = eigenbasis.carried(basis.matrices(averages), old, new)
    averages = ops.reshape(averages, (config.timescales, -1))
    basis.assign(new)
    basis.since.assign(ops.zeros((), "int32"))
    begin = 0
    for variable, piece in zip(state, pieces, strict=True):
        end = begin + piece.shape[-1]
        own = ops.cast(averages[:, begin:end], piece.dtype)
        variable.assign(
            ops.concatenate([piece[:start], own, piece[stop:]], axis=0)
        )
        begin = end


def _read(variable):
    return None if variable is None else backend.read(variable)


def _one(variable):
    return ops.eye(variable.shape[0], dtype=variable.dtype)
